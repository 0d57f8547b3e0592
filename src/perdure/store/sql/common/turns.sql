-- Turns in sessions: open, waiting and reading.

-- name: count_turn
-- holds: session=session_id
INSERT INTO transcripts (project_id, session_id, version, turns, summarized, dropped, written_at_us, begun_at_us)
VALUES (:project_id, :session_id, 0, 1, 0, 0, :now_us, :now_us)
ON CONFLICT (project_id, session_id) DO UPDATE SET turns = transcripts.turns + 1, written_at_us = excluded.written_at_us
RETURNING turns;

-- name: open_turn
SELECT execution_id FROM turns WHERE project_id = :project_id AND session_id = :session_id AND state = 'open';

-- name: insert_turn
-- holds: session=session_id
INSERT INTO turns (execution_id, session_id, project_id, state, n, deliver, taken_by, read_version)
VALUES (:execution_id, :session_id, :project_id, :state, :n, :deliver, NULL, NULL);

-- name: note_reading
-- holds: session=session_id
-- The version that an execution has read; the oldest counts.
INSERT INTO turns (execution_id, session_id, project_id, state, n, deliver, taken_by, read_version)
VALUES (:execution_id, :session_id, :project_id, 'reading', 0, 0, NULL, :version)
ON CONFLICT (execution_id, session_id) DO UPDATE
  SET read_version = {MIN|LEAST}(COALESCE(turns.read_version, excluded.read_version), excluded.read_version)
RETURNING taken_by;

-- name: result_of
SELECT phase, {= result} FROM executions WHERE project_id = :project_id AND id = :id;

-- name: messages_to_take
-- Each execution by its key: PostgreSQL might turn a join into a scan of a whole workflow.
SELECT t.execution_id,
  (SELECT {= payload} FROM executions WHERE project_id = t.project_id AND id = t.execution_id LIMIT 1)
FROM turns t
WHERE t.project_id = :project_id AND t.session_id = :session_id AND t.state = 'waiting' AND t.deliver = 1
  AND (SELECT e.workflow_id FROM executions e WHERE e.project_id = t.project_id AND e.id = t.execution_id LIMIT 1) = :workflow_id
ORDER BY t.n LIMIT :limit;

-- name: take_turn
-- holds: session=session_id
UPDATE turns SET state = 'taken', taken_by = :taken_by
WHERE execution_id = :execution_id AND session_id = :session_id AND state = 'waiting';

-- name: leave_turn
-- holds: session=session_id
-- From now on it is not taken again.
UPDATE turns SET state = 'waiting', taken_by = NULL, deliver = 0
WHERE execution_id = :execution_id AND session_id = :session_id AND taken_by = :taken_by;

-- name: turns_of_execution
SELECT session_id, state FROM turns WHERE execution_id = :execution_id ORDER BY session_id;

-- name: delete_turn
-- holds: session=session_id
DELETE FROM turns WHERE execution_id = :execution_id AND session_id = :session_id;

-- name: taken_turns
SELECT execution_id FROM turns
WHERE project_id = :project_id AND session_id = :session_id AND taken_by = :taken_by ORDER BY n;

-- name: give_back_taken
-- holds: session=session_id
UPDATE turns SET state = 'waiting', taken_by = NULL
WHERE project_id = :project_id AND session_id = :session_id AND taken_by = :taken_by;

-- name: next_turn
SELECT execution_id FROM turns WHERE project_id = :project_id AND session_id = :session_id AND state = 'waiting' ORDER BY n LIMIT 1;

-- name: begin_turn
-- holds: session=session_id
UPDATE turns SET state = 'open' WHERE execution_id = :execution_id AND session_id = :session_id;

-- name: release_turn
-- holds: execution=id
-- Waiting turns that may now be claimed.
UPDATE executions SET due_at_us = NULL, ready_at_us = :now_us, gate = {= gate}
WHERE project_id = :project_id AND id = :id AND phase = 'queued' AND due_at_us = :held_us RETURNING deployment_id;

-- name: oldest_reading
SELECT MIN(read_version) FROM turns WHERE project_id = :project_id AND session_id = :session_id;

-- name: any_turn
SELECT execution_id FROM turns WHERE project_id = :project_id AND session_id = :session_id LIMIT 1;

-- name: turn_before
-- The execution whose end a waiting turn awaits: the taker of its message, or the session's open turn.
SELECT t.session_id, COALESCE(t.taken_by, (SELECT o.execution_id FROM turns o
  WHERE o.project_id = t.project_id AND o.session_id = t.session_id AND o.state = 'open' LIMIT 1))
FROM turns t WHERE t.execution_id = :execution_id AND t.state IN ('waiting', 'taken') LIMIT 1;
