-- compatible: yes
-- Where a native or embedded worker runs; NULL: it did not say.
ALTER TABLE workers ADD COLUMN host TEXT;
ALTER TABLE workers ADD COLUMN pid INTEGER;
-- When new executions began to go to another deployment; NULL: they go to this one, or the time is not known.
ALTER TABLE deployments ADD COLUMN superseded_at_us INTEGER;
