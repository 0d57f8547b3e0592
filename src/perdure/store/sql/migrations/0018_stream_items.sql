-- compatible: yes
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
