-- compatible: yes
-- Push workers: the server brings them their work. Their registration is a row of `workers` (embedded = 2) with one of these
-- beside it; they are called at `url`.
CREATE TABLE push_workers (
  id {text} PRIMARY KEY,
  project_id {text} NOT NULL,
  url {text} NOT NULL,
  -- registered: not to be called yet · online · lapsed: what it held is with others; remembered in case it comes back
  state TEXT NOT NULL,
  -- A worker says that it is online before its socket listens.
  online_at_us INTEGER,
  refused INTEGER NOT NULL,
  check_at_us INTEGER NOT NULL,
  CONSTRAINT push_state_is_known CHECK (state = 'registered' OR state = 'online' OR state = 'lapsed')
) {table};
CREATE UNIQUE INDEX push_workers_by_url ON push_workers (project_id, url);
CREATE INDEX push_workers_to_check ON push_workers (check_at_us) WHERE state = 'online';

-- What travels with an execution and is nobody's business on the way: handed to its push worker, or kept for later looks.
CREATE TABLE execution_extras (
  execution_id {text} PRIMARY KEY,
  otel_traceparent TEXT,
  otel_span_id TEXT,
  initial_state {blob},
  final_state {blob},
  channel_context {blob}
) {table};

-- Only events of this type.
ALTER TABLE waits ADD COLUMN event_type TEXT;
-- The end of a whole batch of children.
ALTER TABLE waits ADD COLUMN batch_id TEXT;

-- Whether a batch has ended is asked at the end of each of its executions.
CREATE INDEX executions_batch_open ON executions (project_id, batch_id) WHERE batch_id IS NOT NULL AND completed_at_us IS NULL;
