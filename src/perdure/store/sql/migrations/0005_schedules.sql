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
