-- Questions that suspended steps ask, and who answered them.

-- name: question_target
SELECT workflow_id, phase, root_execution_id FROM executions WHERE project_id = :project_id AND id = :id;

-- name: question_of
SELECT execution_id, state, topic, data, opened_at_us, expires_at_us FROM waits
WHERE execution_id = :execution_id AND key = :key AND data IS NOT NULL AND state <> 'early';

-- name: question_below
-- The one that is open, of all that executions below a root ask under a key; if none is, the last.
SELECT w.execution_id, w.state, w.topic, w.data, w.opened_at_us, w.expires_at_us
FROM executions e JOIN waits w ON w.execution_id = e.id AND w.key = :key AND w.data IS NOT NULL AND w.state <> 'early'
WHERE e.project_id = :project_id AND e.root_execution_id = :id
ORDER BY CASE WHEN w.state = 'open' THEN 0 ELSE 1 END, w.opened_at_us, w.execution_id LIMIT 1;

-- name: list_questions
SELECT w.execution_id, w.key, w.data, w.opened_at_us, w.expires_at_us, e.workflow_id, COALESCE(e.root_execution_id, e.id), e.phase
FROM waits w JOIN executions e ON e.project_id = w.project_id AND e.id = w.execution_id
WHERE w.project_id = :project_id AND w.state = 'open' AND w.data IS NOT NULL
  AND (w.opened_at_us, w.execution_id, w.key) > (:after_us, :after_id, :after_key)
ORDER BY w.opened_at_us, w.execution_id, w.key LIMIT :limit;

-- name: read_approval
SELECT answered_at_us, answered_by, how, data FROM approvals WHERE execution_id = :execution_id AND key = :key
ORDER BY answered_at_us DESC LIMIT 1;

-- name: insert_approval
-- holds: execution=execution_id
INSERT INTO approvals (execution_id, key, answered_at_us, project_id, answered_by, how, data)
VALUES (:execution_id, :key, :now_us, :project_id, :answered_by, :how, :data) ON CONFLICT DO NOTHING;

-- name: note_approval
-- holds: execution=execution_id
-- For answers that may have come before: who gave the first is kept.
INSERT INTO approvals (execution_id, key, answered_at_us, project_id, answered_by, how, data)
SELECT :execution_id, :key, :now_us{::BIGINT}, :project_id, :answered_by, :how, :data{::BYTEA}
WHERE NOT EXISTS (SELECT 1 FROM approvals WHERE execution_id = :execution_id AND key = :key);

-- name: delete_approvals
-- holds: execution=id
DELETE FROM approvals WHERE execution_id = :id;
