-- compatible: yes
-- A question has its time: from then on no answer is taken, whether the code has noticed or not.
ALTER TABLE waits ADD COLUMN expires_at_us INTEGER;
-- Waits that ask somebody something, oldest first.
CREATE INDEX waits_asked ON waits (project_id, opened_at_us, execution_id, key) WHERE state = 'open' AND data IS NOT NULL;

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
