-- The same sentences in other words. For `x IN (a, b, c)` SQLite makes a table of its own each time it looks, at every
-- insert and every change of phase; that was as much work as the insert itself. Comparisons joined by OR are not.

ALTER TABLE executions DROP CONSTRAINT phase_is_known;
ALTER TABLE executions ADD CONSTRAINT phase_is_known CHECK (phase = 'queued' OR phase = 'running' OR phase = 'waiting'
  OR phase = 'cancelling' OR phase = 'blocked' OR phase = 'completed' OR phase = 'failed' OR phase = 'cancelled');

ALTER TABLE executions DROP CONSTRAINT finished_exactly_when_final;
ALTER TABLE executions ADD CONSTRAINT finished_exactly_when_final
  CHECK ((phase = 'completed' OR phase = 'failed' OR phase = 'cancelled') = (completed_at_us IS NOT NULL));

ALTER TABLE executions DROP CONSTRAINT nothing_is_due_when_final;
ALTER TABLE executions ADD CONSTRAINT nothing_is_due_when_final CHECK (completed_at_us IS NULL OR due_at_us IS NULL);

ALTER TABLE waits DROP CONSTRAINT wait_state_is_known;
ALTER TABLE waits ADD CONSTRAINT wait_state_is_known
  CHECK (state = 'open' OR state = 'met' OR state = 'early' OR state = 'closed');

DROP INDEX journal_outcomes;
CREATE UNIQUE INDEX journal_outcomes ON journal (execution_id, key, kind)
  WHERE kind = 'step' OR kind = 'timer' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started' OR kind = 'child'
    OR kind = 'published' OR kind = 'sent';
