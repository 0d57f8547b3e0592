-- compatible: yes
-- The running bulk jobs of each project.
CREATE INDEX bulk_jobs_open ON bulk_jobs (project_id, id) WHERE state = 'running';
DROP INDEX bulk_jobs_running;
