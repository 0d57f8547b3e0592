-- compatible: no
-- INTEGER is a 64-bit integer, times are microseconds (_us), ids are text, values are bytes that the database never looks
-- into. {blob}, {table}, {heap} and {text} are the few words that differ by database (migrate.py).
-- No foreign keys: every statement carries the project, execution ids are unique across projects, and the check would
-- cost each step more than the rest of its insert.
-- Conditions join comparisons by OR: for `x IN (a, b, c)` SQLite makes a table at every insert and every change of phase.

-- The order in which executions were started and events published, whatever the clocks said: a wait looks at the events
-- with a greater number than its execution's. On SQLite the driver gives the numbers (`created_number()`).
{postgres_only}CREATE SEQUENCE created_numbers;
{postgres_only}GRANT USAGE ON SEQUENCE created_numbers TO PUBLIC;

CREATE TABLE meta (
  name {text} PRIMARY KEY,
  value TEXT NOT NULL
) {table};

CREATE TABLE projects (
  id {text} PRIMARY KEY,
  name TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  current_deployment_id TEXT,
  description TEXT,
  updated_at_us INTEGER,
  -- How many webhooks it has: if 0, an end looks for none.
  webhooks INTEGER NOT NULL DEFAULT 0
) {table};

CREATE TABLE api_keys (
  id {text} PRIMARY KEY,
  project_id TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  secret_hash TEXT NOT NULL,
  last_four_digits TEXT NOT NULL,
  development INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL,
  last_used_at_us INTEGER
) {table};
CREATE INDEX api_keys_by_project ON api_keys (project_id);

CREATE TABLE deployments (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  created_at_us INTEGER NOT NULL,
  registered_at_us INTEGER NOT NULL,
  -- 1: push workers serve it, to which the server brings the work. 0: native workers, whose registry arrives whole.
  push INTEGER NOT NULL DEFAULT 0,
  retired_at_us INTEGER,
  -- When new executions began to go to another deployment; NULL: they go to this one, or the time is not known.
  superseded_at_us INTEGER,
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
  type TEXT NOT NULL DEFAULT 'workflow',
  trigger_on_event INTEGER NOT NULL DEFAULT 0,
  scheduled INTEGER NOT NULL DEFAULT 0,
  -- 0: as old as its deployment.
  created_at_us INTEGER NOT NULL DEFAULT 0,
  -- The searchable fields of a workflow in a deployment, as a JSON list; NULL: none.
  searchable TEXT,
  -- What a worker said of the workflow's function, for people (JSON); NULL: nothing.
  described {blob},
  -- Names the check of inputs at the start; equal checks have equal names. NULL: inputs are not checked.
  input_check TEXT,
  PRIMARY KEY (project_id, deployment_id, id)
) {table};
-- The lists of workflows, agents and tools go by name over all deployments.
CREATE INDEX workflows_by_name ON workflows (project_id, id, deployment_id);

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
  last_claim_id TEXT,
  protocol INTEGER NOT NULL DEFAULT 1,
  -- The steps that a worker ran when it last beat: [[execution id, key, try, begun at], …].
  in_flight {blob},
  -- Where a native or embedded worker runs; NULL: it did not say.
  host TEXT,
  pid INTEGER
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
  -- 0: free. 1: its queue has limits; such executions are admitted one (queue, key) at a time. From 2 on: the pause of this
  -- number holds it.
  gate INTEGER NOT NULL,
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
  created_number INTEGER,
  -- The execution whose journal a fork began with, and the step from which it runs again; NULL: from the start.
  forked_from TEXT,
  forked_at_step TEXT,
  -- How many rows of the journal were copied.
  kept_rows INTEGER,
  -- The ids from which a fork's random numbers and its idempotency keys come; NULL: its own.
  seed_id TEXT,
  keys_id TEXT,
  -- The retry, which has taken over `key`. The only column that changes in a final execution.
  retried_as TEXT,
  -- Workers of an older protocol do not get it; NULL: all do.
  needs_protocol INTEGER,
  -- `result` is empty if it equals the value of this row of the journal. (A step's value is empty if it equals the payload.)
  result_seq INTEGER,
  PRIMARY KEY (project_id, id),
  CONSTRAINT held_by_a_worker_while_running CHECK (phase NOT IN ('running', 'cancelling') OR assigned_to_worker IS NOT NULL),
  CONSTRAINT result_only_when_completed CHECK ((phase = 'completed') = (result IS NOT NULL)),
  CONSTRAINT cancelled_has_an_author CHECK (phase NOT IN ('cancelled', 'cancelling') OR (cancelled_by IS NOT NULL AND cancelled_at_us IS NOT NULL)),
  CONSTRAINT finished_exactly_when_final
    CHECK ((phase = 'completed' OR phase = 'failed' OR phase = 'cancelled') = (completed_at_us IS NOT NULL)),
  CONSTRAINT nothing_is_due_when_final CHECK (completed_at_us IS NULL OR due_at_us IS NULL),
  CONSTRAINT phase_is_known CHECK (phase = 'queued' OR phase = 'running' OR phase = 'waiting'
    OR phase = 'cancelling' OR phase = 'blocked' OR phase = 'held' OR phase = 'completed' OR phase = 'failed' OR phase = 'cancelled'),
  CONSTRAINT error_only_when_it_went_wrong
    CHECK (error IS NULL OR phase = 'failed' OR phase = 'blocked' OR phase = 'held')
) {table};
CREATE INDEX executions_ready ON executions (project_id, deployment_id, rank, ready_at_us, id)
  WHERE phase = 'queued' AND gate = 0 AND due_at_us IS NULL;
CREATE INDEX executions_ready_limited ON executions (project_id, deployment_id, queue_name, COALESCE(concurrency_key, ''), rank, ready_at_us, id)
  WHERE phase = 'queued' AND gate = 1 AND due_at_us IS NULL;
CREATE INDEX executions_held ON executions (assigned_to_worker, id) WHERE phase IN ('running', 'cancelling');
CREATE INDEX executions_held_limited ON executions (project_id, queue_name, COALESCE(concurrency_key, ''))
  WHERE phase IN ('running', 'cancelling') AND gate = 1;
CREATE INDEX executions_due ON executions (phase, due_at_us) WHERE due_at_us IS NOT NULL;
CREATE INDEX executions_early ON executions (project_id) WHERE deployment_id IS NULL;
CREATE INDEX executions_idle ON executions (project_id, deployment_id, phase, workflow_id) WHERE phase IN ('waiting', 'blocked');
CREATE INDEX executions_by_parent ON executions (project_id, parent_execution_id, id) WHERE parent_execution_id IS NOT NULL;
CREATE INDEX executions_by_root ON executions (project_id, root_execution_id, id) WHERE root_execution_id IS NOT NULL;
CREATE INDEX executions_by_session ON executions (project_id, session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX executions_by_user ON executions (project_id, user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX executions_by_batch ON executions (project_id, batch_id, id) WHERE batch_id IS NOT NULL;
-- What has ended, by when: the order of traces, and what an exporter goes through.
CREATE INDEX executions_by_end ON executions (project_id, completed_at_us, id) WHERE completed_at_us IS NOT NULL;
-- What failed, which operators ask for, among very many that did not.
CREATE INDEX executions_failed ON executions (project_id, id) WHERE phase = 'failed';
-- Whether a batch has ended is asked at the end of each of its executions.
CREATE INDEX executions_batch_open ON executions (project_id, batch_id) WHERE batch_id IS NOT NULL AND completed_at_us IS NULL;
CREATE INDEX executions_by_source ON executions (project_id, forked_from, id) WHERE forked_from IS NOT NULL;
CREATE INDEX executions_on_hold ON executions (project_id, deployment_id, workflow_id, id) WHERE phase = 'held';
CREATE INDEX executions_paused ON executions (gate, id) WHERE phase = 'queued' AND gate > 1 AND due_at_us IS NULL;
-- An open execution is in one index, an ended one in the other: a list by workflow and status does not walk through
-- executions of another status.
CREATE INDEX executions_open ON executions (project_id, workflow_id, id) WHERE completed_at_us IS NULL;
CREATE INDEX executions_ended ON executions (project_id, workflow_id, phase, id) WHERE completed_at_us IS NOT NULL;
CREATE INDEX executions_cancelled ON executions (project_id, id) WHERE phase = 'cancelled';
-- Most queues are named after their workflow, and its indexes serve them.
CREATE INDEX executions_by_queue ON executions (project_id, queue_name, id) WHERE queue_name <> workflow_id;
-- By key first, so that a key is found without its workflow, and by its beginning.
CREATE UNIQUE INDEX executions_by_key ON executions (project_id, key, workflow_id) WHERE key IS NOT NULL AND retried_as IS NULL;
CREATE INDEX executions_by_retried_key ON executions (project_id, key, id) WHERE key IS NOT NULL AND retried_as IS NOT NULL;
-- Of two indexes that look equally good PostgreSQL takes the younger, and while a table has not been analysed its rows by
-- id and its rows by workflow look alike. The primary key has to be the youngest, or every look at one execution walks
-- through those of its project.
{postgres_only}ALTER TABLE executions DROP CONSTRAINT executions_pkey;
{postgres_only}ALTER TABLE executions ADD PRIMARY KEY (project_id, id);
{postgres_only}ALTER TABLE executions ALTER COLUMN created_number SET DEFAULT nextval('created_numbers');

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
  -- How people read a step, and whether a timeline may fold it.
  label TEXT,
  quiet INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (execution_id, seq)
) {table};
-- I2: the first recorded outcome of a key is the only one. (A child has two: started, and ended.)
CREATE UNIQUE INDEX journal_outcomes ON journal (execution_id, key, kind)
  WHERE kind = 'step' OR kind = 'timer' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started' OR kind = 'child'
    OR kind = 'published' OR kind = 'sent';
CREATE UNIQUE INDEX journal_transcripts ON journal (execution_id, key) WHERE kind = 'transcript';

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
  -- A question has its time: from then on no answer is taken, whether the code has noticed or not.
  expires_at_us INTEGER,
  -- Only events of this type.
  event_type TEXT,
  -- The end of a whole batch of children.
  batch_id TEXT,
  -- 1: an answer has to name the question, since it could be meant for another one: the step asked something else before,
  -- or was answered before it asked.
  must_name INTEGER NOT NULL DEFAULT 0,
  -- The JSON Schema of the answer that a question's code expects; NULL: its code named no type.
  answer_schema {blob},
  -- When a wait was given up; NULL: it was not. A question whose execution ended in time did not expire.
  closed_at_us INTEGER,
  -- What a wait matches: the names, as a JSON list in order, and a hash of their values. NULL: publishing compares it with
  -- each event.
  match_names TEXT,
  match_hash INTEGER,
  PRIMARY KEY (execution_id, key),
  CONSTRAINT wait_state_is_known
    CHECK (state = 'open' OR state = 'met' OR state = 'early' OR state = 'closed')
) {table};
-- Waits that ask somebody something, oldest first.
CREATE INDEX waits_asked ON waits (project_id, opened_at_us, execution_id, key) WHERE state = 'open' AND data IS NOT NULL;
-- Expired questions, newest first.
CREATE INDEX waits_expired ON waits (project_id, expires_at_us, execution_id, key)
  WHERE state <> 'met' AND data IS NOT NULL AND expires_at_us IS NOT NULL;
CREATE INDEX waits_open ON waits (project_id, topic, match_names, match_hash, execution_id) WHERE state = 'open' AND topic IS NOT NULL;

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
  created_number INTEGER,
  PRIMARY KEY (project_id, topic, seq)
) {table};
CREATE INDEX events_by_time ON events (created_at_us);
CREATE UNIQUE INDEX events_dedup ON events (project_id, topic, dedup_key) WHERE dedup_key IS NOT NULL;
{postgres_only}ALTER TABLE events ALTER COLUMN created_number SET DEFAULT nextval('created_numbers');

-- The first answer to a request that carried an Idempotency-Key.
CREATE TABLE idempotency (
  project_id {text} NOT NULL,
  route {text} NOT NULL,
  key {text} NOT NULL,
  body_hash TEXT NOT NULL,
  answer {blob} NOT NULL,
  -- Since when the time counts for which it is kept: for a start, from the end of the executions that it names.
  kept_since_us INTEGER NOT NULL,
  -- Those executions, as a JSON list; NULL: none, or they have ended.
  executions TEXT,
  PRIMARY KEY (project_id, route, key)
) {table};
CREATE INDEX idempotency_by_time ON idempotency (kept_since_us);

-- What workflow code logged: a stream beside the journal, at most 1,000 lines per execution.
CREATE TABLE logs (
  execution_id {text} NOT NULL,
  n INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  level INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (execution_id, n)
) {table};

-- Registrations that have ended. A copy of a registration's first message that comes late must not open it again: what it
-- held is somebody else's by now, and a worker that was told "your lease holds" would go on with it.
CREATE TABLE ended_workers (
  id {text} PRIMARY KEY,
  ended_at_us INTEGER NOT NULL
) {table};

-- Schedules belong to a project's workflow, not to a deployment: the current one runs what they start.
CREATE TABLE schedules (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  workflow_id TEXT NOT NULL,
  key TEXT NOT NULL,
  cron TEXT NOT NULL,
  timezone TEXT NOT NULL,
  status TEXT NOT NULL,
  overlap TEXT NOT NULL,
  missed TEXT NOT NULL,
  missed_window_seconds INTEGER NOT NULL,
  -- What its executions get; NULL: what there is to say of the due time.
  payload {blob},
  -- 1 while code declares it: a registration without it deletes it.
  declared INTEGER NOT NULL,
  next_at_us INTEGER NOT NULL,
  last_slot_us INTEGER,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id),
  CONSTRAINT schedule_status_is_known CHECK (status = 'active' OR status = 'paused'),
  CONSTRAINT overlap_is_known CHECK (overlap = 'skip' OR overlap = 'queue' OR overlap = 'allow'),
  CONSTRAINT missed_is_known CHECK (missed = 'skip' OR missed = 'latest' OR missed = 'all')
) {table};
CREATE UNIQUE INDEX schedules_by_key ON schedules (project_id, workflow_id, key);
CREATE INDEX schedules_due ON schedules (next_at_us) WHERE status = 'active';

-- I7: one row per due time of a schedule, whoever fires it. `by_hand` is empty for due times, else the execution's id.
CREATE TABLE schedule_fires (
  schedule_id {text} NOT NULL,
  slot_us INTEGER NOT NULL,
  by_hand {text} NOT NULL,
  project_id TEXT NOT NULL,
  -- started: its execution may be open · waiting: for the one before it · done: its execution has ended · skipped: why
  state TEXT NOT NULL,
  execution_id TEXT,
  reason TEXT,
  fired_at_us INTEGER NOT NULL,
  PRIMARY KEY (schedule_id, slot_us, by_hand),
  CONSTRAINT fire_state_is_known CHECK (state = 'started' OR state = 'waiting' OR state = 'done' OR state = 'skipped'),
  CONSTRAINT started_has_an_execution CHECK (state = 'waiting' OR state = 'skipped' OR execution_id IS NOT NULL),
  CONSTRAINT skipped_says_why CHECK ((state = 'skipped') = (reason IS NOT NULL))
) {table};
CREATE INDEX schedule_fires_open ON schedule_fires (schedule_id, slot_us) WHERE state = 'started' OR state = 'waiting';
CREATE INDEX schedule_fires_waiting ON schedule_fires (schedule_id) WHERE state = 'waiting';
CREATE INDEX schedule_fires_by_time ON schedule_fires (fired_at_us);

-- A row for each transaction whose end a server may have to ask after. The number that PostgreSQL gives a transaction does
-- not do: what a crash took back leaves its number to another one.
{postgres_only}CREATE TABLE commits (token INTEGER PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now());

-- What a project's calls out are signed with. A secret that is being replaced goes on beside its successor for a while.
CREATE TABLE signing_secrets (
  project_id {text} PRIMARY KEY,
  secret TEXT NOT NULL,
  -- What links to pages are signed with: nobody but the server knows it.
  links TEXT NOT NULL,
  made_at_us INTEGER NOT NULL,
  previous TEXT,
  previous_until_us INTEGER,
  -- Signs links until `previous_until_us`.
  previous_links TEXT,
  CONSTRAINT previous_ends CHECK ((previous IS NULL) = (previous_until_us IS NULL))
) {table};

-- What workers say of their agents and tools, as JSON; the server only hands it out again.
CREATE TABLE definitions (
  project_id {text} NOT NULL,
  kind {text} NOT NULL,
  deployment_id {text} NOT NULL,
  id {text} NOT NULL,
  value {blob} NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, kind, deployment_id, id),
  CONSTRAINT definition_kind_is_known CHECK (kind = 'agent' OR kind = 'tool')
) {table};
CREATE INDEX definitions_by_name ON definitions (project_id, kind, id, deployment_id);

CREATE TABLE conversations (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  last_id INTEGER NOT NULL,
  PRIMARY KEY (project_id, id)
) {table};

CREATE TABLE conversation_messages (
  project_id {text} NOT NULL,
  conversation_id {text} NOT NULL,
  agent_id {text} NOT NULL,
  id INTEGER NOT NULL,
  role TEXT NOT NULL,
  content {blob} NOT NULL,
  agent_run_id TEXT,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, conversation_id, agent_id, id)
) {table};

-- Spans that workers and exporters send. A trace whose id is that of an execution goes with it, others by age. The
-- journal's own spans are made when they are asked for and are not here.
CREATE TABLE spans (
  project_id {text} NOT NULL,
  trace_id {text} NOT NULL,
  span_id {text} NOT NULL,
  parent_span_id TEXT,
  name TEXT NOT NULL,
  span_type TEXT NOT NULL,
  -- 1: its error is an object
  failed INTEGER NOT NULL,
  started_at_us INTEGER NOT NULL,
  ended_at_us INTEGER,
  -- attributes, events, input, output, error, states, as one JSON object
  body {blob} NOT NULL,
  PRIMARY KEY (project_id, trace_id, span_id)
) {table};
CREATE INDEX spans_without_parent ON spans (project_id, trace_id, started_at_us) WHERE parent_span_id IS NULL;

-- One row per trace that has spans here: what a list shows and looks for, and the lock of whoever adds spans.
CREATE TABLE traces (
  project_id {text} NOT NULL,
  trace_id {text} NOT NULL,
  -- The first span without a parent; while there is none (`rooted` is 0), the first of all.
  root_span_id TEXT,
  root_span_type TEXT,
  root_span_name TEXT,
  rooted INTEGER NOT NULL,
  started_at_us INTEGER,
  ended_at_us INTEGER,
  -- The end, or the start of what has not ended: the order of a list.
  sorted_at_us INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  spans INTEGER NOT NULL,
  of_execution INTEGER NOT NULL,
  written_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, trace_id)
) {table};
CREATE INDEX traces_by_end ON traces (project_id, sorted_at_us, trace_id);
CREATE INDEX traces_by_age ON traces (written_at_us) WHERE of_execution = 0;

-- What an agent remembers of a session. The version tells concurrent writers apart.
CREATE TABLE session_memory (
  project_id {text} NOT NULL,
  session_id {text} NOT NULL,
  summary {blob},
  messages {blob} NOT NULL,
  version INTEGER NOT NULL,
  written_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, session_id)
) {table};
CREATE INDEX session_memory_by_age ON session_memory (written_at_us);

-- Which executions' spans were sent to the operator's collector: claimed by the server that sends them, once each. What
-- ended long before the cursor is done and forgotten here.
CREATE TABLE trace_exports (
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  ended_at_us INTEGER NOT NULL,
  claimed_until_us INTEGER NOT NULL,
  sent INTEGER NOT NULL,
  PRIMARY KEY (project_id, execution_id)
) {table};
CREATE INDEX trace_exports_unsent ON trace_exports (project_id, claimed_until_us) WHERE sent = 0;
CREATE INDEX trace_exports_sent ON trace_exports (project_id, ended_at_us) WHERE sent = 1;

CREATE TABLE export_cursors (
  project_id {text} PRIMARY KEY,
  -- Up to which execution ends were taken.
  ended_at_us INTEGER NOT NULL,
  ended_id TEXT NOT NULL,
  -- Up to which they were looked at once more, when nothing of their time could be committed any more.
  looked_at_us INTEGER NOT NULL,
  looked_id TEXT NOT NULL
) {table};

-- Who answered what, and when.
CREATE TABLE approvals (
  execution_id {text} NOT NULL,
  key {text} NOT NULL,
  answered_at_us INTEGER NOT NULL,
  project_id TEXT NOT NULL,
  answered_by TEXT NOT NULL,
  -- api, page or link
  how TEXT NOT NULL,
  data {blob} NOT NULL,
  PRIMARY KEY (execution_id, key, answered_at_us)
) {table};
-- Answers, newest first.
CREATE INDEX approvals_by_time ON approvals (project_id, answered_at_us, execution_id, key);

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

-- Event triggers belong to a project's workflow and topic, not to a deployment: the current one runs what they start.
CREATE TABLE event_triggers (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  workflow_id {text} NOT NULL,
  topic {text} NOT NULL,
  batch_size INTEGER NOT NULL,
  batch_timeout_seconds INTEGER,
  queue_name TEXT,
  -- 1 while code declares it: a registration without it deletes it.
  declared INTEGER NOT NULL,
  -- Every event up to this number was taken, or was there before the trigger.
  taken_seq INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id),
  CONSTRAINT batch_has_a_size CHECK (batch_size > 0)
) {table};
CREATE UNIQUE INDEX event_triggers_by_topic ON event_triggers (project_id, topic, workflow_id);

-- People who sign in, and their place in projects. E-mails are in lower case; of passwords and tokens only hashes are kept.
CREATE TABLE users (
  id {text} PRIMARY KEY,
  email TEXT NOT NULL,
  first_name TEXT,
  last_name TEXT,
  display_name TEXT,
  password_hash TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL
) {table};
CREATE UNIQUE INDEX users_by_email ON users (email);

CREATE TABLE user_sessions (
  token_hash {text} PRIMARY KEY,
  user_id TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL
) {table};
CREATE INDEX user_sessions_by_user ON user_sessions (user_id, expires_at_us);

CREATE TABLE members (
  project_id {text} NOT NULL,
  user_id {text} NOT NULL,
  id TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, user_id),
  CONSTRAINT role_is_known CHECK (role = 'read' OR role = 'write' OR role = 'admin')
) {table};
CREATE INDEX members_by_user ON members (user_id);

-- For e-mails that nobody has signed up with yet: whoever does so with the token becomes a member.
CREATE TABLE invitations (
  project_id {text} NOT NULL,
  email {text} NOT NULL,
  role TEXT NOT NULL,
  token_hash TEXT NOT NULL,
  expires_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, email)
) {table};
CREATE INDEX invitations_by_email ON invitations (email);
-- An invitation is accepted by its token; the e-mail proves nothing.
CREATE INDEX invitations_by_token ON invitations (token_hash);

-- Who hears of ends: URLs of a project, and URLs of single executions.
CREATE TABLE webhooks (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  url TEXT NOT NULL,
  host TEXT NOT NULL,
  -- The workflow whose ends are told; NULL: all.
  workflow_id TEXT,
  description TEXT,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id)
) {table};

CREATE TABLE execution_webhooks (
  execution_id {text} PRIMARY KEY,
  url TEXT NOT NULL,
  host TEXT NOT NULL
) {table};

-- What is to be told of an end, or was. Written in the transaction of the end.
CREATE TABLE deliveries (
  execution_id {text} NOT NULL,
  -- Empty for the URL that came with the execution.
  webhook_id {text} NOT NULL,
  project_id TEXT NOT NULL,
  url TEXT NOT NULL,
  host TEXT NOT NULL,
  -- pending · delivered · failed: given up
  state TEXT NOT NULL,
  tries INTEGER NOT NULL,
  -- When it is tried next; while it is being tried, when somebody else may.
  next_at_us INTEGER,
  created_at_us INTEGER NOT NULL,
  tried_at_us INTEGER,
  -- What came of the last try: the status, and the beginning of the answer or why there is none.
  status INTEGER,
  answer TEXT,
  -- How often a message was tried before it was sent again by request.
  earlier_tries INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (execution_id, webhook_id),
  CONSTRAINT delivery_state_is_known CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed'),
  CONSTRAINT due_while_pending CHECK ((state = 'pending') = (next_at_us IS NOT NULL))
) {table};
CREATE INDEX deliveries_due ON deliveries (next_at_us) WHERE state = 'pending';
CREATE INDEX deliveries_by_project ON deliveries (project_id, created_at_us, execution_id, webhook_id);

-- The transcript of a session: what a model is shown of it. A message is stored once in its project, under a hash of its
-- bytes, and entries refer to it, so that a turn adds as much as it says, however much was said before. On SQLite it is
-- a heap: a row of a B-tree by hash would leave its page half empty, or take pages of its own.
CREATE TABLE messages (
  project_id {text} NOT NULL,
  hash {blob} NOT NULL,
  content {blob} NOT NULL,
  -- How many entries refer to it; with the last one it goes.
  uses INTEGER NOT NULL,
  PRIMARY KEY (project_id, hash)
) {heap};

-- One row per session: its counters, and the lock of whoever adds to it or waits for its turn there.
CREATE TABLE transcripts (
  project_id {text} NOT NULL,
  session_id {text} NOT NULL,
  -- The number of the newest entry.
  version INTEGER NOT NULL,
  -- How many turns were asked for.
  turns INTEGER NOT NULL,
  -- Up to which entry the newest summary stands for what was said, and up to which entries are gone.
  summarized INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  written_at_us INTEGER NOT NULL,
  -- Tells a transcript from the one before it, which was erased, and whose entries have the same numbers.
  begun_at_us INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, session_id)
) {table};
CREATE INDEX transcripts_by_age ON transcripts (written_at_us);

-- Append-only. A summary stands for every entry up to `summary_of`, and for summaries before it.
CREATE TABLE transcript_entries (
  project_id {text} NOT NULL,
  session_id {text} NOT NULL,
  seq INTEGER NOT NULL,
  hash {blob} NOT NULL,
  summary_of INTEGER,
  PRIMARY KEY (project_id, session_id, seq)
) {table};
CREATE INDEX transcript_summaries ON transcript_entries (project_id, session_id, seq) WHERE summary_of IS NOT NULL;

-- Open executions that have to do with a transcript: the one whose turn it is, those that wait for theirs, and readers.
CREATE TABLE turns (
  execution_id {text} NOT NULL,
  session_id {text} NOT NULL,
  project_id {text} NOT NULL,
  -- open: it has the turn · waiting: for those before it · taken: `taken_by` has its message · reading: it has no turn
  state TEXT NOT NULL,
  n INTEGER NOT NULL,
  -- 1: whoever has the turn may take its message.
  deliver INTEGER NOT NULL,
  taken_by TEXT,
  -- The oldest version that it has read: in a replay it reads that one again.
  read_version INTEGER,
  PRIMARY KEY (execution_id, session_id),
  CONSTRAINT turn_state_is_known CHECK (state = 'open' OR state = 'waiting' OR state = 'taken' OR state = 'reading'),
  CONSTRAINT taken_by_somebody CHECK ((state = 'taken') = (taken_by IS NOT NULL))
) {table};
CREATE INDEX turns_of_session ON turns (project_id, session_id, n);
CREATE UNIQUE INDEX turns_open ON turns (project_id, session_id) WHERE state = 'open';

-- What an execution emits for whoever follows it live, apart from the journal: at most 10,000 items of it are kept.
CREATE TABLE stream_items (
  execution_id {text} NOT NULL,
  n INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  -- The run that emitted it: what the same key emits in a later one takes its place.
  attempt INTEGER NOT NULL,
  tries INTEGER NOT NULL,
  key TEXT NOT NULL,
  kind TEXT NOT NULL,
  data {blob} NOT NULL,
  -- The size of all data so far, with this one's.
  upto INTEGER NOT NULL,
  PRIMARY KEY (execution_id, n)
) {table};

-- What trees of executions may spend, and what calls under way have set aside of it.
CREATE TABLE budgets (
  -- Where it is held: it is shared by that execution and all below it.
  execution_id {text} PRIMARY KEY,
  project_id TEXT NOT NULL,
  root_id TEXT NOT NULL,
  on_exceed TEXT NOT NULL,
  -- The limits; NULL: none. Money in millionths of a US dollar.
  usd_micros_max INTEGER,
  tokens_max INTEGER,
  calls_max INTEGER,
  seconds_max INTEGER,
  usd_micros_spent INTEGER NOT NULL DEFAULT 0,
  tokens_spent INTEGER NOT NULL DEFAULT 0,
  calls_spent INTEGER NOT NULL DEFAULT 0,
  -- The sum of its open reservations.
  usd_micros_reserved INTEGER NOT NULL DEFAULT 0,
  tokens_reserved INTEGER NOT NULL DEFAULT 0,
  calls_reserved INTEGER NOT NULL DEFAULT 0,
  opened_at_us INTEGER NOT NULL,
  paused_at_us INTEGER,
  raises INTEGER NOT NULL DEFAULT 0,
  asking_id TEXT,
  -- A balance is a row of `budgets`: `root_id` is the shared budget, the limits are what raises have added to it. The key
  -- is the session, the user or the tag's value, '' for a project; NULL for the budget of an execution.
  key {text},
  -- The day of a balance's last call, if retention may delete it; NULL: it stays as long as its shared budget.
  used_at_us INTEGER,
  CONSTRAINT on_exceed_is_known CHECK (on_exceed = 'ask' OR on_exceed = 'finish' OR on_exceed = 'fail'),
  CONSTRAINT nothing_below_zero CHECK (usd_micros_spent >= 0 AND tokens_spent >= 0 AND calls_spent >= 0
    AND usd_micros_reserved >= 0 AND tokens_reserved >= 0 AND calls_reserved >= 0)
) {table};
CREATE INDEX budgets_by_root ON budgets (root_id);
CREATE INDEX budgets_by_key ON budgets (root_id, key) WHERE key IS NOT NULL;
CREATE INDEX budgets_by_use ON budgets (used_at_us) WHERE used_at_us IS NOT NULL;
CREATE INDEX budgets_paused ON budgets (root_id, execution_id) WHERE paused_at_us IS NOT NULL;

-- One row for each call and each budget that it is charged to.
CREATE TABLE reservations (
  execution_id {text} NOT NULL,
  id {text} NOT NULL,
  budget_id {text} NOT NULL,
  project_id TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  -- What was reserved; of a settled one what it took.
  usd_micros INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  calls INTEGER NOT NULL,
  settled INTEGER NOT NULL DEFAULT 0,
  reserved_at_us INTEGER NOT NULL,
  PRIMARY KEY (execution_id, id, budget_id)
) {table};
CREATE INDEX reservations_open ON reservations (budget_id, execution_id) WHERE settled = 0;

-- Large payloads; `executions` holds an empty one for them. That row is written anew with each step, whatever is in it.
-- On SQLite it is a heap: a look for another row of a B-tree
-- by execution would read the large ones that it passes.
CREATE TABLE large_payloads (
  execution_id {text} PRIMARY KEY,
  payload {blob} NOT NULL
) {heap};

-- Losses that count towards POISONED, by the worker that was lost. If that worker says later that it is alive, its
-- losses are taken back.
CREATE TABLE counted_losses (
  worker_id {text} NOT NULL,
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  lost_at_us INTEGER NOT NULL,
  PRIMARY KEY (worker_id, project_id, execution_id)
) {table};
CREATE INDEX counted_losses_by_age ON counted_losses (lost_at_us);

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

-- `name` of a concurrency key's pause is its queue; other kinds have no concurrency key.
CREATE TABLE pauses (
  project_id {text} NOT NULL,
  kind {text} NOT NULL,
  name {text} NOT NULL,
  concurrency_key {text} NOT NULL,
  number INTEGER NOT NULL,
  -- marking: executions that were ready before it still get its number, from `place` on. ending: they lose it.
  state TEXT NOT NULL,
  paused_at_us INTEGER NOT NULL,
  paused_by TEXT NOT NULL,
  note TEXT,
  until_us INTEGER,
  place TEXT,
  PRIMARY KEY (project_id, kind, name, concurrency_key),
  CONSTRAINT pause_kind_is_known CHECK (kind = 'deployment' OR kind = 'workflow' OR kind = 'queue' OR kind = 'key'),
  CONSTRAINT pause_state_is_known CHECK (state = 'marking' OR state = 'holding' OR state = 'ending')
) {table};
CREATE UNIQUE INDEX pauses_by_number ON pauses (number);

-- What an execution is found by: later words of its key (k:), words of its error (e:), searchable fields (f:).
CREATE TABLE search_terms (
  project_id {text} NOT NULL,
  term {text} NOT NULL,
  execution_id {text} NOT NULL,
  PRIMARY KEY (project_id, term, execution_id)
) {table};
CREATE INDEX search_terms_of ON search_terms (execution_id);

-- The searchable fields of a workflow in any deployment. Executions older than `place` have no terms of the field yet; NULL:
-- all have.
CREATE TABLE search_fields (
  project_id {text} NOT NULL,
  workflow_id {text} NOT NULL,
  field {text} NOT NULL,
  declared_at_us INTEGER NOT NULL,
  place TEXT,
  PRIMARY KEY (project_id, workflow_id, field)
) {table};
CREATE INDEX search_fields_to_fill ON search_fields (declared_at_us) WHERE place IS NOT NULL;

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
  -- When the first execution of a bulk job may change; NULL: at once.
  starts_at_us INTEGER,
  PRIMARY KEY (project_id, id),
  CONSTRAINT job_state_is_known CHECK (state = 'running' OR state = 'stopped' OR state = 'completed')
) {table};
CREATE INDEX bulk_jobs_by_age ON bulk_jobs (moved_at_us) WHERE state <> 'running';
-- The running bulk jobs of each project.
CREATE INDEX bulk_jobs_open ON bulk_jobs (project_id, id) WHERE state = 'running';

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

-- How many executions ended, by slices of time.
CREATE TABLE ended_counts (
  project_id {text} NOT NULL,
  -- The length of the slice. Each end is in one slice of every length.
  step_us INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  workflow_id {text} NOT NULL,
  -- Empty: none.
  deployment_id {text} NOT NULL,
  -- Empty: the queue that is named after the workflow.
  queue_name {text} NOT NULL,
  phase {text} NOT NULL,
  -- The class of its duration. -1: none.
  took INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (project_id, step_us, at_us, workflow_id, deployment_id, queue_name, phase, took)
) {table};

-- One row. `ended_counts` has the ends before `folded_to_us`.
CREATE TABLE ended_folds (
  id INTEGER PRIMARY KEY,
  -- 0: the whole past is counted.
  folded_to_us INTEGER NOT NULL,
  -- Ends before this time have been looked for a second time.
  settled_to_us INTEGER NOT NULL,
  -- How often executions were deleted that were not counted yet.
  deletions INTEGER NOT NULL
) {table};

-- Which fields the events of a topic have (verbs/runs/event_fields.py).
CREATE TABLE event_fields (
  project_id {text} NOT NULL,
  topic {text} NOT NULL,
  -- 0 to 15: of a block, the hashes that begin so. 16: of events after the last block. 17: of a block, for any value.
  part INTEGER NOT NULL,
  -- The last event that the row is about.
  seq INTEGER NOT NULL,
  entries {blob} NOT NULL,
  PRIMARY KEY (project_id, topic, part, seq)
) {table};

-- Limits that many executions spend from. NULL: no limit of that kind.
CREATE TABLE shared_budgets (
  project_id {text} NOT NULL,
  name {text} NOT NULL,
  id TEXT NOT NULL,
  -- What has a balance of its own: 'project', 'session', 'user', or 'tag:NAME' for each value of a tag.
  per TEXT NOT NULL,
  -- 'day': a balance counts one day in UTC.
  period TEXT,
  on_exceed TEXT NOT NULL,
  usd_micros_max INTEGER,
  tokens_max INTEGER,
  calls_max INTEGER,
  PRIMARY KEY (project_id, name),
  CONSTRAINT on_exceed_is_known CHECK (on_exceed = 'ask' OR on_exceed = 'finish' OR on_exceed = 'fail')
) {table};

-- Links to questions.
CREATE TABLE approval_links (
  id {text} PRIMARY KEY,
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  step_key TEXT NOT NULL,
  question TEXT NOT NULL,
  name TEXT NOT NULL,
  made_by TEXT NOT NULL,
  -- A link ends with the key or the membership of its maker. Both are null for a program without a stored key.
  key_id TEXT,
  user_id TEXT,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL,
  used_at_us INTEGER
) {table};
CREATE INDEX approval_links_by_project ON approval_links (project_id, created_at_us, id);
CREATE INDEX approval_links_by_execution ON approval_links (execution_id);

-- An app's name proves nothing, so each project has names of its own.
CREATE TABLE slack_apps (
  project_id {text} NOT NULL,
  api_app_id {text} NOT NULL,
  bound_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, api_app_id)
) {table};
