-- compatible: yes
-- Bulk jobs, and what each did with each execution.
CREATE TABLE bulk_jobs (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  action TEXT NOT NULL,
  filters {blob} NOT NULL,
  options {blob} NOT NULL,
  note TEXT,
  started_by TEXT NOT NULL,
  state TEXT NOT NULL,
  -- The job takes executions up to this id.
  newest TEXT NOT NULL,
  -- The job has taken the executions from here on. Empty: all, but for items that are for later.
  place TEXT NOT NULL,
  total INTEGER NOT NULL,
  at_least INTEGER NOT NULL,
  done INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  later INTEGER NOT NULL,
  worked_us INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL,
  moved_at_us INTEGER NOT NULL,
  ended_at_us INTEGER,
  PRIMARY KEY (project_id, id),
  CONSTRAINT job_state_is_known CHECK (state = 'running' OR state = 'stopped' OR state = 'completed')
) {table};
CREATE INDEX bulk_jobs_running ON bulk_jobs (id) WHERE state = 'running';
CREATE INDEX bulk_jobs_by_age ON bulk_jobs (moved_at_us) WHERE state <> 'running';
CREATE TABLE bulk_items (
  job_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  -- done · refused · later: another transaction held a row of it
  state TEXT NOT NULL,
  made_id TEXT,
  reason TEXT,
  at_us INTEGER NOT NULL,
  PRIMARY KEY (job_id, execution_id)
) {table};
CREATE INDEX bulk_items_by_state ON bulk_items (job_id, state, execution_id);
