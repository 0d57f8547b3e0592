-- compatible: no
-- The release before does not know the phase `held`.
ALTER TABLE executions DROP CONSTRAINT phase_is_known;
ALTER TABLE executions ADD CONSTRAINT phase_is_known CHECK (phase = 'queued' OR phase = 'running' OR phase = 'waiting'
  OR phase = 'cancelling' OR phase = 'blocked' OR phase = 'held' OR phase = 'completed' OR phase = 'failed' OR phase = 'cancelled');
ALTER TABLE executions DROP CONSTRAINT error_only_when_it_went_wrong;
ALTER TABLE executions ADD CONSTRAINT error_only_when_it_went_wrong
  CHECK (error IS NULL OR phase = 'failed' OR phase = 'blocked' OR phase = 'held');

-- The execution whose journal a fork began with, and the step from which it runs again; NULL: from the start.
ALTER TABLE executions ADD COLUMN forked_from TEXT;
ALTER TABLE executions ADD COLUMN forked_at_step TEXT;
-- How many rows of the journal were copied.
ALTER TABLE executions ADD COLUMN kept_rows INTEGER;
-- The ids from which a fork's random numbers and its idempotency keys come; NULL: its own.
ALTER TABLE executions ADD COLUMN seed_id TEXT;
ALTER TABLE executions ADD COLUMN keys_id TEXT;
-- The retry, which has taken over `key`. The only column that changes in a final execution.
ALTER TABLE executions ADD COLUMN retried_as TEXT;
-- Workers of an older protocol do not get it; NULL: all do.
ALTER TABLE executions ADD COLUMN needs_protocol INTEGER;
ALTER TABLE workers ADD COLUMN protocol INTEGER NOT NULL DEFAULT 1;

DROP INDEX executions_by_key;
CREATE UNIQUE INDEX executions_by_key ON executions (project_id, workflow_id, key) WHERE key IS NOT NULL AND retried_as IS NULL;
CREATE INDEX executions_by_source ON executions (project_id, forked_from, id) WHERE forked_from IS NOT NULL;
CREATE INDEX executions_on_hold ON executions (project_id, deployment_id, workflow_id, id) WHERE phase = 'held';

-- Who changed an execution by hand, by the journal row that the act made or changed.
CREATE TABLE acts (
  execution_id {text} NOT NULL,
  seq INTEGER NOT NULL,
  project_id TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  action TEXT NOT NULL,
  key TEXT,
  acted_by TEXT NOT NULL,
  note TEXT,
  PRIMARY KEY (execution_id, seq)
) {table};

-- Steps that run for long, and timers behind the earliest one; valid for their attempt.
CREATE TABLE pending_calls (
  execution_id {text} NOT NULL,
  key {text} NOT NULL,
  attempt INTEGER NOT NULL,
  kind TEXT NOT NULL,
  name TEXT,
  since_us INTEGER NOT NULL,
  due_us INTEGER,
  tries INTEGER NOT NULL,
  PRIMARY KEY (execution_id, key)
) {table};
