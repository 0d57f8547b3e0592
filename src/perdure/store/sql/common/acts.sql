-- What is pending in an execution, and acts on it.

-- name: actable
SELECT e.id, e.phase, e.attempt, e.next_seq, e.kept_rows, e.assigned_to_worker AS worker_id, e.timer_key, e.due_at_us, e.ready_at_us, e.error,
  COALESCE(d.push, 0) AS push, COALESCE(w.protocol, 1) AS protocol
FROM executions e LEFT JOIN deployments d ON d.project_id = e.project_id AND d.id = e.deployment_id
LEFT JOIN workers w ON w.id = e.assigned_to_worker
WHERE e.project_id = :project_id AND e.id = :id;

-- name: recent_tries
-- Failed tries, and what came of them.
SELECT seq, at_us, kind, key, name, tries, CASE WHEN kind IN ('step_failed', 'held') THEN value END AS value FROM journal
WHERE execution_id = :execution_id AND seq > :after AND kind IN ('step_failed', 'step', 'retried', 'woken', 'held', 'forked')
ORDER BY seq;

-- name: open_children
-- Those that the journal says were started, and without an outcome that an act gave.
SELECT e.id, e.workflow_id, e.step_key, e.created_at_us FROM executions e
WHERE e.project_id = :project_id AND e.parent_execution_id = :id AND e.completed_at_us IS NULL AND e.step_key IS NOT NULL
  AND (:key{::TEXT} IS NULL OR e.step_key = :key)
  AND EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = e.step_key AND j.kind = 'child_started'
    AND ({= outcomes}) AND {CAST(j.value AS TEXT)|CONVERT_FROM(j.value, 'UTF8')} = '"' || e.id || '"')
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = e.step_key AND j.kind = 'child' AND ({= outcomes}))
ORDER BY e.id LIMIT :limit;

-- name: pending_calls
-- Without those that have an outcome.
SELECT key, kind, name, since_us, due_us, tries FROM pending_calls p
WHERE execution_id = :execution_id AND attempt = :attempt
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = :execution_id AND j.key = p.key AND j.kind IN ('step', 'timer')
    AND ({= outcomes}))
ORDER BY since_us, key;

-- name: need_protocol
-- holds: execution=id
-- Older workers do not understand what an act wrote.
UPDATE executions SET needs_protocol = 2 WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: insert_act
-- holds: execution=execution_id
INSERT INTO acts (execution_id, seq, project_id, at_us, action, key, acted_by, note)
VALUES (:execution_id, :seq, :project_id, :at_us, :action, :key, :acted_by, :note);

-- name: given_since
-- The steps and timers that got outcomes between two rows.
SELECT key FROM journal WHERE execution_id = :execution_id AND seq > :after AND seq < :before AND kind IN ('step', 'timer');

-- name: insert_pending_call
-- holds: execution=execution_id
INSERT INTO pending_calls (execution_id, key, attempt, kind, name, since_us, due_us, tries)
VALUES (:execution_id, :key, :attempt, :kind, :name, :since_us, :due_us, :tries);

-- name: acts_between
SELECT seq, at_us, action, key, acted_by, note FROM acts
WHERE execution_id = :execution_id AND seq BETWEEN :first_seq AND :last_seq ORDER BY seq;
