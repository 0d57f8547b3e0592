-- compatible: yes
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
