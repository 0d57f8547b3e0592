-- compatible: no
-- The release before publishes events without their fields, and changes a wait without its hash.

-- What a wait matches: the names, as a JSON list in order, and a hash of their values. NULL: publishing compares it with
-- each event, as it does with waits of the release before.
ALTER TABLE waits ADD COLUMN match_names TEXT;
ALTER TABLE waits ADD COLUMN match_hash INTEGER;
DROP INDEX waits_open;
CREATE INDEX waits_open ON waits (project_id, topic, match_names, match_hash, execution_id) WHERE state = 'open' AND topic IS NOT NULL;

-- Events with a greater number are in `event_fields`. NULL: no event of the topic is.
ALTER TABLE topics ADD COLUMN indexed_after INTEGER;
-- Which fields the events of a topic have (verbs/event_fields.py).
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
