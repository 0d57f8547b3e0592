-- Transitions from outside.

-- name: read_state
SELECT {columns State} FROM executions WHERE project_id = :project_id AND id = :id;

-- name: phase_of_parent
-- Empty without a parent.
SELECT COALESCE(p.phase, '') FROM executions e LEFT JOIN executions p ON p.id = e.parent_execution_id
WHERE e.project_id = :project_id AND e.id = :id;

-- name: lock_state
-- holds: execution=id
-- As read_state, for decisions: locks the row until the verb ends.
SELECT {columns State} FROM executions WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: try_lock_execution
-- picks: an execution, unless it is locked
SELECT phase, due_at_us FROM executions WHERE project_id = :project_id AND id = :id {FOR UPDATE SKIP LOCKED};

-- name: deliver_outcome
-- holds: execution=id
-- sees: journal execution_id=id key=key
-- Delivers an outcome: a waiting execution goes back to its queue, and a held one gets it with its next report. The end
-- of a child (`started`: its id, as a value) only reaches the execution that recorded under this key that it started
-- that child, and only once: an act may have given an outcome.
UPDATE executions SET next_seq = next_seq + 1, losses = 0, undelivered = 0,
  rank = CASE WHEN phase = 'waiting' THEN -priority ELSE rank END,
  ready_at_us = CASE WHEN phase = 'waiting' THEN :now_us ELSE ready_at_us END,
  due_at_us = CASE WHEN phase = 'waiting' THEN NULL ELSE due_at_us END,
  gate = CASE WHEN phase = 'waiting' THEN {= gate} ELSE gate END,
  phase = CASE WHEN phase = 'waiting' THEN 'queued' ELSE phase END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('queued', 'running', 'waiting', 'cancelling', 'blocked', 'held')
  AND (:started{::BYTEA} IS NULL OR EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = :id AND s.key = :key
    AND s.kind = 'child_started' AND s.value = :started)
    AND NOT EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = :id AND s.key = :key AND s.kind = 'child'))
RETURNING {= moved};

-- name: wake_timers
-- picks: executions whose timer is due
-- No index knows the phase `phase || ''`: without statistics PostgreSQL would prefer the small index of waiting
-- executions to the primary key. An execution whose own time is ahead of the clock sees the time that it asked for: see
-- `suspend`. The wait that is closed then (`close_wait`) is locked before; while it is locked elsewhere, its timer is
-- not due.
WITH due AS MATERIALIZED (
  SELECT project_id, id FROM executions WHERE phase = 'waiting' AND due_at_us <= :now_us
  {AND ((SELECT w.key FROM waits w WHERE w.execution_id = executions.id AND w.key = timer_key AND w.state = 'open') IS NULL
    OR (SELECT w.key FROM waits w WHERE w.execution_id = executions.id AND w.key = timer_key AND w.state = 'open'
      FOR UPDATE SKIP LOCKED) IS NOT NULL)}
  ORDER BY due_at_us LIMIT :limit {FOR UPDATE SKIP LOCKED})
UPDATE executions SET phase = 'queued', rank = -priority, ready_at_us = due_at_us, due_at_us = NULL,
  losses = CASE WHEN timer_key IS NULL THEN losses ELSE 0 END,
  undelivered = CASE WHEN timer_key IS NULL THEN undelivered ELSE 0 END, next_seq = next_seq + 1,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us, CASE WHEN {= time_is_ahead}
    THEN due_at_us + moved_at_us - COALESCE(ready_at_us, moved_at_us) ELSE 0 END),
  gate = {= gate}
WHERE phase || '' = 'waiting' AND due_at_us <= :now_us AND (project_id, id) IN (SELECT project_id, id FROM due)
RETURNING project_id, id, timer_key, {= moved};

-- name: set_ahead
-- The timers that were set by a clock ahead of the present one: their number, and the shortest duration.
SELECT COUNT(*) AS amount, MIN(due_at_us - ready_at_us) AS shortest_us FROM executions
WHERE phase = 'waiting' AND due_at_us > :now_us AND ready_at_us - 60000000 > :now_us;

-- name: bring_forward
-- picks: executions whose timer was set before the clock's step back, and lasts no longer than the time since
WITH due AS MATERIALIZED (
  SELECT project_id, id FROM executions WHERE phase = 'waiting' AND due_at_us > :now_us AND ready_at_us - 60000000 > :now_us
    AND due_at_us - ready_at_us <= :passed_us LIMIT :limit {FOR UPDATE SKIP LOCKED})
UPDATE executions SET ready_at_us = :now_us - (due_at_us - ready_at_us), due_at_us = :now_us
WHERE phase || '' = 'waiting' AND ready_at_us - 60000000 > :now_us AND due_at_us - ready_at_us <= :passed_us
  AND (project_id, id) IN (SELECT project_id, id FROM due)
RETURNING id;

-- name: ready_delayed
-- picks: queued executions whose start time has come
WITH due AS MATERIALIZED (
  SELECT project_id, id FROM executions WHERE phase = 'queued' AND due_at_us <= :now_us ORDER BY due_at_us LIMIT :limit
  {FOR UPDATE SKIP LOCKED})
UPDATE executions SET ready_at_us = due_at_us, due_at_us = NULL, gate = {= gate}
WHERE phase = 'queued' AND due_at_us <= :now_us AND (project_id, id) IN (SELECT project_id, id FROM due)
RETURNING project_id, deployment_id;

-- name: overdue
-- Ties in one order: parents are older than their children.
SELECT due_at_us, project_id, id FROM executions WHERE phase = :phase AND due_at_us BETWEEN :after_us AND :now_us
  AND (due_at_us, project_id, id) > (:after_us, :after_project_id, :after_id)
ORDER BY due_at_us, project_id, id LIMIT :limit;

-- name: next_due
SELECT 'waiting', (SELECT due_at_us FROM executions WHERE phase = 'waiting' AND due_at_us > :after_us
  ORDER BY due_at_us LIMIT 1)
UNION ALL SELECT 'queued', (SELECT due_at_us FROM executions WHERE phase = 'queued' AND due_at_us > :after_us
  ORDER BY due_at_us LIMIT 1)
UNION ALL SELECT 'running', (SELECT due_at_us FROM executions WHERE phase = 'running' AND due_at_us > :after_us
  ORDER BY due_at_us LIMIT 1)
UNION ALL SELECT 'cancelling', (SELECT due_at_us FROM executions WHERE phase = 'cancelling' AND due_at_us > :after_us
  ORDER BY due_at_us LIMIT 1);

-- name: cancel_idle
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL, error = NULL,
  cancelled_at_us = COALESCE(cancelled_at_us, :now_us), cancelled_by = COALESCE(cancelled_by, :cancelled_by),
  next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('queued', 'waiting', 'blocked', 'held')
RETURNING {= ended};

-- name: cancel_waking
-- holds: execution=id
-- on_cancel="wake": an execution that has begun, and waits, is held or is queued again, runs once more so that its code
-- can clean up. (`phase || ''`: see wake_timers.)
UPDATE executions SET phase = 'queued', rank = -priority, ready_at_us = :now_us, due_at_us = NULL,
  gate = COALESCE({= pause_gate}, 0), error = NULL, cancelled_at_us = :now_us, cancelled_by = :cancelled_by, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase || '' IN ('waiting', 'queued', 'held') AND cancelled_by IS NULL
RETURNING {= moved};

-- name: ask_cancel
-- holds: execution=id
UPDATE executions SET phase = 'cancelling', cancelled_at_us = :now_us, cancelled_by = :cancelled_by,
  due_at_us = :due_at_us, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running'
RETURNING {= moved};

-- name: overrule
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'cancelling'
RETURNING {= ended};

-- name: lose
-- holds: execution=id
-- If its first worker refused it, it has not run yet.
UPDATE executions SET phase = 'queued', due_at_us = :due_at_us, rank = -priority,
  started_at_us = CASE WHEN :refused = 1 AND started_at_us = moved_at_us THEN NULL ELSE started_at_us END,
  ready_at_us = COALESCE(:due_at_us, :now_us{::BIGINT}), losses = :losses, undelivered = :undelivered, next_seq = next_seq + 1,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  gate = {= gate}
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING {= moved};

-- name: poison
-- holds: execution=id
UPDATE executions SET phase = 'failed', error = :error, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  losses = losses + 1, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING {= ended};

-- name: release_hold
-- holds: execution=id
-- `rows` in the journal say how it goes on. In another deployment it may run on another Python, and claims keep to the
-- pauses there without a number in `gate`.
UPDATE executions SET phase = 'queued', error = NULL, rank = -priority, ready_at_us = :now_us, due_at_us = NULL,
  next_seq = next_seq + :rows, losses = 0, undelivered = 0, retry_count = CASE WHEN :fresh = 1 THEN 0 ELSE retry_count END,
  deployment_id = COALESCE(:deployment_id, deployment_id),
  python = CASE WHEN :deployment_id{::TEXT} IS NULL THEN python END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  gate = CASE WHEN :deployment_id{::TEXT} IS NULL THEN {= gate} ELSE {= limits_gate} END
WHERE project_id = :project_id AND id = :id AND phase = 'held'
RETURNING {= moved};

-- name: give_up
-- holds: execution=id
-- `rows` in the journal: failures of held steps, and the end.
UPDATE executions SET phase = 'failed', error = COALESCE(:error, error), next_seq = next_seq + :rows,
  completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'held'
RETURNING {= ended};

-- name: unblock
-- picks: the blocked executions of a deployment that registers anew
UPDATE executions SET phase = 'queued', error = NULL, rank = -priority, ready_at_us = :now_us, next_seq = next_seq + 1,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  gate = {= gate}
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase IN ('waiting', 'blocked') AND phase = 'blocked'
RETURNING id, next_seq - 1 AS seq, moved_at_us AS at_us, attempt;

-- name: adopt_early
-- picks: executions that were accepted before the project had a deployment
-- They get the workflow's registration, as if they started now.
UPDATE executions SET deployment_id = :deployment_id, output_schema_name = w.output_schema_name,
  run_timeout_seconds = COALESCE(executions.run_timeout_seconds, w.run_timeout_seconds), wake_on_cancel = w.wake_on_cancel,
  queue_name = CASE WHEN executions.queue_name = w.id THEN COALESCE(w.queue_name, w.id) ELSE executions.queue_name END,
  gate = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = CASE WHEN executions.queue_name = w.id THEN COALESCE(w.queue_name, w.id) ELSE executions.queue_name END
    AND ({= has_limits})) THEN 1 ELSE 0 END
FROM workflows w
WHERE w.project_id = :project_id AND w.deployment_id = :deployment_id AND w.id = executions.workflow_id
  AND executions.project_id = :project_id AND executions.phase = 'queued' AND executions.deployment_id IS NULL
RETURNING executions.id;

-- name: children_to_cancel
-- Children, and whether each is over. A child that ended in the same group, without a row in its parent's journal yet,
-- is not over: the cancel waits for the verb that ends it. Otherwise both would see each other half done.
SELECT id, CASE WHEN phase IN ('completed', 'failed', 'cancelled') AND (step_key IS NULL OR EXISTS (
  SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = executions.step_key AND j.kind = 'child')) THEN 1 ELSE 0 END
FROM executions WHERE project_id = :project_id AND parent_execution_id = :id ORDER BY id;

-- name: children
SELECT id, phase FROM executions WHERE project_id = :project_id AND parent_execution_id = :id ORDER BY id;
