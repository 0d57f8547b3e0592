-- compatible: no
-- The release before does not know pauses of workflows, concurrency keys and deployments.
-- 0: free. 1: the execution's queue has limits. From 2 on: the pause of this number holds the execution.
ALTER TABLE executions RENAME COLUMN limited TO gate;

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
CREATE INDEX executions_paused ON executions (gate, id) WHERE phase = 'queued' AND gate > 1 AND due_at_us IS NULL;

INSERT INTO pauses SELECT project_id, 'queue', name, '', 1 + ROW_NUMBER() OVER (ORDER BY project_id, name), 'marking',
  paused_at_us, 'unknown', NULL, NULL, NULL FROM queues WHERE paused_at_us IS NOT NULL;
ALTER TABLE queues DROP COLUMN paused_at_us;
-- A pause counted as a limit of its queue.
UPDATE executions SET gate = 0 WHERE gate = 1 AND NOT EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
  AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL));
