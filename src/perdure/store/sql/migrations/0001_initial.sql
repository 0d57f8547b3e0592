-- The first schema. INTEGER is a 64-bit integer, times are microseconds (_us), ids are text, values are bytes that the
-- database never looks into. {blob}, {table} and {text} are the few words that differ by database (migrate.py).
-- No foreign keys: every statement carries the project, execution ids are unique across projects, and the check would
-- cost each step more than the rest of its insert.

CREATE TABLE meta (
  name {text} PRIMARY KEY,
  value TEXT NOT NULL
) {table};

CREATE TABLE projects (
  id {text} PRIMARY KEY,
  name TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  current_deployment_id TEXT
) {table};

CREATE TABLE api_keys (
  id {text} PRIMARY KEY,
  project_id TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  secret_hash TEXT NOT NULL,
  last_four_digits TEXT NOT NULL,
  development INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL
) {table};

CREATE TABLE deployments (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  created_at_us INTEGER NOT NULL,
  registered_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id)
) {table};

CREATE TABLE workflows (
  project_id {text} NOT NULL,
  deployment_id {text} NOT NULL,
  id {text} NOT NULL,
  queue_name TEXT,
  output_schema_name TEXT,
  run_timeout_seconds INTEGER,
  wake_on_cancel INTEGER NOT NULL,
  PRIMARY KEY (project_id, deployment_id, id)
) {table};

CREATE TABLE queues (
  project_id {text} NOT NULL,
  name {text} NOT NULL,
  concurrency_limit INTEGER,
  total_limit INTEGER,
  PRIMARY KEY (project_id, name)
) {table};

-- A worker's registration. Its lease is one row, whatever it holds; embedded workers live as long as their process.
CREATE TABLE workers (
  id {text} PRIMARY KEY,
  project_id TEXT NOT NULL,
  deployment_id TEXT NOT NULL,
  python TEXT NOT NULL,
  capacity INTEGER NOT NULL,
  embedded INTEGER NOT NULL,
  lease_until_us INTEGER NOT NULL,
  registered_at_us INTEGER NOT NULL,
  last_claim_id TEXT
) {table};

CREATE TABLE executions (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  workflow_id TEXT NOT NULL,
  deployment_id TEXT,
  phase TEXT NOT NULL,
  payload {blob} NOT NULL,
  result {blob},
  error TEXT,
  created_at_us INTEGER NOT NULL,
  started_at_us INTEGER,
  completed_at_us INTEGER,
  assigned_to_worker TEXT,
  parent_execution_id TEXT,
  root_execution_id TEXT,
  retry_count INTEGER NOT NULL DEFAULT 0,
  step_key TEXT,
  queue_name TEXT NOT NULL,
  concurrency_key TEXT,
  batch_id TEXT,
  session_id TEXT,
  user_id TEXT,
  output_schema_name TEXT,
  cancelled_at_us INTEGER,
  cancelled_by TEXT,
  run_timeout_seconds INTEGER,
  key TEXT,
  attempt INTEGER NOT NULL DEFAULT 0,
  tags {blob},
  progress {blob},
  -- What ends the present phase by itself: a timer (waiting), the start time (queued), the run timeout (running) or the
  -- grace (cancelling).
  due_at_us INTEGER,
  timer_key TEXT,
  next_seq INTEGER NOT NULL DEFAULT 1,
  priority INTEGER NOT NULL DEFAULT 0,
  -- Order of admission: what wakes before what is new, then by priority.
  rank INTEGER NOT NULL,
  ready_at_us INTEGER NOT NULL,
  -- 1 while its queue has a limit; such executions are admitted one (queue, key) at a time.
  limited INTEGER NOT NULL,
  wake_on_cancel INTEGER NOT NULL,
  python TEXT,
  acked INTEGER NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  undelivered INTEGER NOT NULL DEFAULT 0,
  report_number INTEGER NOT NULL DEFAULT 0,
  claim_id TEXT,
  parked_worker TEXT,
  parked_seq INTEGER,
  moved_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id),
  CONSTRAINT phase_is_known CHECK (phase IN ('queued', 'running', 'waiting', 'cancelling', 'blocked', 'completed', 'failed', 'cancelled')),
  CONSTRAINT held_by_a_worker_while_running CHECK (phase NOT IN ('running', 'cancelling') OR assigned_to_worker IS NOT NULL),
  CONSTRAINT finished_exactly_when_final CHECK ((phase IN ('completed', 'failed', 'cancelled')) = (completed_at_us IS NOT NULL)),
  CONSTRAINT result_only_when_completed CHECK ((phase = 'completed') = (result IS NOT NULL)),
  CONSTRAINT error_only_when_it_went_wrong CHECK (error IS NULL OR phase IN ('failed', 'blocked')),
  CONSTRAINT cancelled_has_an_author CHECK (phase NOT IN ('cancelled', 'cancelling') OR (cancelled_by IS NOT NULL AND cancelled_at_us IS NOT NULL)),
  CONSTRAINT nothing_is_due_when_final CHECK (phase NOT IN ('completed', 'failed', 'cancelled') OR due_at_us IS NULL)
) {table};

CREATE INDEX executions_by_workflow ON executions (project_id, workflow_id, id);
CREATE INDEX executions_ready ON executions (project_id, deployment_id, rank, ready_at_us, id)
  WHERE phase = 'queued' AND limited = 0 AND due_at_us IS NULL;
CREATE INDEX executions_ready_limited ON executions (project_id, deployment_id, queue_name, COALESCE(concurrency_key, ''), rank, ready_at_us, id)
  WHERE phase = 'queued' AND limited = 1 AND due_at_us IS NULL;
CREATE INDEX executions_held ON executions (assigned_to_worker, id) WHERE phase IN ('running', 'cancelling');
CREATE INDEX executions_held_limited ON executions (project_id, queue_name, COALESCE(concurrency_key, ''))
  WHERE phase IN ('running', 'cancelling') AND limited = 1;
CREATE INDEX executions_due ON executions (phase, due_at_us) WHERE due_at_us IS NOT NULL;
CREATE INDEX executions_early ON executions (project_id) WHERE deployment_id IS NULL;
CREATE INDEX executions_idle ON executions (project_id, deployment_id, phase, workflow_id) WHERE phase IN ('waiting', 'blocked');
CREATE INDEX executions_by_parent ON executions (project_id, parent_execution_id, id) WHERE parent_execution_id IS NOT NULL;
CREATE INDEX executions_by_root ON executions (project_id, root_execution_id, id) WHERE root_execution_id IS NOT NULL;
CREATE INDEX executions_by_session ON executions (project_id, session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX executions_by_user ON executions (project_id, user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX executions_by_batch ON executions (project_id, batch_id, id) WHERE batch_id IS NOT NULL;
CREATE UNIQUE INDEX executions_by_key ON executions (project_id, workflow_id, key) WHERE key IS NOT NULL;

CREATE TABLE execution_tags (
  project_id {text} NOT NULL,
  name {text} NOT NULL,
  value {text} NOT NULL,
  execution_id {text} NOT NULL,
  PRIMARY KEY (project_id, name, value, execution_id)
) {table};
CREATE INDEX execution_tags_of ON execution_tags (execution_id);

-- Append-only: a row for each accepted move and each outcome of an execution. The one exception is a retry, which turns
-- the failure that it takes back from `step` into `step_failed`.
CREATE TABLE journal (
  execution_id {text} NOT NULL,
  seq INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  key TEXT,
  name TEXT,
  fingerprint TEXT,
  ok INTEGER NOT NULL,
  value {blob} NOT NULL,
  started_at_us INTEGER,
  tries INTEGER NOT NULL,
  PRIMARY KEY (execution_id, seq)
) {table};
-- I2: the first recorded outcome of a key is the only one. (A child has two: started, and ended.)
CREATE UNIQUE INDEX journal_outcomes ON journal (execution_id, key, kind)
  WHERE kind IN ('step', 'timer', 'event', 'resume', 'child_started', 'child', 'published', 'sent');

CREATE TABLE waits (
  execution_id {text} NOT NULL,
  key {text} NOT NULL,
  project_id TEXT NOT NULL,
  -- open: waits · met: its outcome is in the journal · early: answered before anybody waited · closed: given up
  state TEXT NOT NULL,
  topic TEXT,
  match {blob},
  fingerprint TEXT,
  after_seq INTEGER,
  event_seq INTEGER,
  data {blob},
  opened_at_us INTEGER NOT NULL,
  PRIMARY KEY (execution_id, key),
  CONSTRAINT wait_state_is_known CHECK (state IN ('open', 'met', 'early', 'closed'))
) {table};
CREATE INDEX waits_open ON waits (project_id, topic, execution_id) WHERE state = 'open' AND topic IS NOT NULL;

CREATE TABLE topics (
  project_id {text} NOT NULL,
  topic {text} NOT NULL,
  last_seq INTEGER NOT NULL,
  PRIMARY KEY (project_id, topic)
) {table};

CREATE TABLE events (
  project_id {text} NOT NULL,
  topic {text} NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  event_type TEXT,
  data {blob} NOT NULL,
  dedup_key TEXT,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, topic, seq)
) {table};
CREATE INDEX events_by_time ON events (created_at_us);
CREATE UNIQUE INDEX events_dedup ON events (project_id, topic, dedup_key) WHERE dedup_key IS NOT NULL;

-- The first answer to a request that carried an Idempotency-Key.
CREATE TABLE idempotency (
  project_id {text} NOT NULL,
  route {text} NOT NULL,
  key {text} NOT NULL,
  body_hash TEXT NOT NULL,
  answer {blob} NOT NULL,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, route, key)
) {table};

CREATE INDEX idempotency_by_time ON idempotency (created_at_us);

-- What workflow code logged: a stream beside the journal, at most 1,000 lines per execution.
CREATE TABLE logs (
  execution_id {text} NOT NULL,
  n INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  level INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (execution_id, n)
) {table};
