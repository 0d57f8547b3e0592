-- compatible: yes
-- Where a registration was; NULL: ended by a build that did not write it, or without a row of its own.
ALTER TABLE ended_workers ADD COLUMN project_id TEXT;
ALTER TABLE ended_workers ADD COLUMN deployment_id TEXT;
-- 1: its worker was lost.
ALTER TABLE ended_workers ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ended_workers_lost ON ended_workers (project_id, deployment_id, ended_at_us) WHERE lost = 1;
