-- compatible: yes
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

-- I2, as journal_outcomes, which is too large to be made anew.
CREATE UNIQUE INDEX journal_transcripts ON journal (execution_id, key) WHERE kind = 'transcript';
