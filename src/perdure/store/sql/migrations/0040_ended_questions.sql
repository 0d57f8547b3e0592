-- compatible: yes
-- When a wait was given up; NULL: it was not, or before this column. A question whose execution ended in time did not expire.
ALTER TABLE waits ADD COLUMN closed_at_us INTEGER;
-- Answers and expired questions, newest first.
CREATE INDEX approvals_by_time ON approvals (project_id, answered_at_us, execution_id, key);
CREATE INDEX waits_expired ON waits (project_id, expires_at_us, execution_id, key)
  WHERE state <> 'met' AND data IS NOT NULL AND expires_at_us IS NOT NULL;
