-- compatible: yes
-- When the first execution of a bulk job may change; NULL: at once.
ALTER TABLE bulk_jobs ADD COLUMN starts_at_us INTEGER;
