-- Numbers over time, and what is open now.

-- text: ends
(SELECT at_us, workflow_id, deployment_id, queue_name, phase, took, n FROM ended_counts
    WHERE project_id = :project_id AND step_us = :step_us AND at_us >= :from_us
  UNION ALL SELECT {= end_group}, 1 AS n FROM executions WHERE project_id = :project_id
    AND completed_at_us >= (SELECT folded_to_us FROM ended_folds WHERE id = 1) AND completed_at_us >= :from_us AND completed_at_us <= :now_us) AS rows

-- text: bucket
at_us / :bucket_us{::BIGINT} * :bucket_us

-- text: sum
CAST(SUM(n) AS {INTEGER|BIGINT}) AS n

-- name: ends_by_workflow
SELECT at_us, workflow_id, phase, took, {= sum} FROM (SELECT {= bucket} AS at_us, workflow_id, phase, took, n FROM {= ends}) AS buckets
GROUP BY at_us, workflow_id, phase, took;

-- name: ends_of_workflow
SELECT at_us, deployment_id, phase, took, {= sum} FROM (SELECT {= bucket} AS at_us, deployment_id, phase, took, n FROM {= ends}
  WHERE workflow_id = :workflow_id) AS buckets
GROUP BY at_us, deployment_id, phase, took;

-- name: ends_since
-- A deployment's ends since it came into use, and those of the one before it, before and since.
SELECT deployment_id, phase, took, {= sum} FROM {= ends}
WHERE deployment_id = :before_id OR (deployment_id = :deployment_id AND at_us >= :since_us)
GROUP BY deployment_id, phase, took;

-- name: ends_of_queue
SELECT at_us, phase, {= sum} FROM (SELECT {= bucket} AS at_us, phase, n FROM {= ends}
  WHERE queue_name = :queue_name OR (queue_name = '' AND workflow_id = :queue_name)) AS buckets
GROUP BY at_us, phase;

-- name: open_by_phase
-- One branch per index of open executions.
SELECT 'delayed' AS phase, COUNT(*) AS n, NULL{::BIGINT} AS since_us FROM executions
WHERE COALESCE(project_id, '') = :project_id AND phase = 'queued' AND due_at_us IS NOT NULL
UNION ALL SELECT 'ready', COUNT(*), MIN(ready_at_us) FROM executions
WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
UNION ALL SELECT 'ready', COUNT(*), MIN(ready_at_us) FROM executions
WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
UNION ALL SELECT 'paused', (SELECT COUNT(*) FROM executions WHERE {= is_paused} AND gate = z.number), NULL
FROM pauses z WHERE z.project_id = :project_id
UNION ALL SELECT phase, COUNT(*), NULL FROM executions
WHERE COALESCE(project_id, '') = :project_id AND phase IN ('running', 'cancelling') GROUP BY phase
UNION ALL SELECT phase, COUNT(*), NULL FROM executions
WHERE project_id = :project_id AND phase IN ('waiting', 'blocked') GROUP BY phase
UNION ALL SELECT phase, COUNT(*), NULL FROM executions WHERE project_id = :project_id AND phase = 'held' GROUP BY phase;

-- name: open_by_workflow
SELECT workflow_id, COUNT(*) FROM executions WHERE project_id = :project_id AND completed_at_us IS NULL GROUP BY workflow_id;

-- name: open_of_workflow
SELECT phase, COUNT(*) FROM (SELECT CASE WHEN {= is_paused} THEN 'paused' ELSE phase END AS phase FROM executions
  WHERE project_id = :project_id AND workflow_id = :workflow_id AND completed_at_us IS NULL LIMIT :limit) AS rows GROUP BY phase;

-- name: newest_completed
SELECT id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND phase = 'completed'
  AND completed_at_us IS NOT NULL ORDER BY id DESC LIMIT :limit;

-- name: step_times
SELECT COALESCE(name, key) AS name, at_us - started_at_us AS took_us FROM journal
WHERE execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND kind = 'step' AND ok = 1 AND started_at_us IS NOT NULL LIMIT :limit;

-- name: keys_of_queue
SELECT NULLIF(concurrency_key, '') AS concurrency_key, CAST(SUM(is_running) AS {INTEGER|BIGINT}) AS running,
  CAST(SUM(1 - is_running) AS {INTEGER|BIGINT}) AS queued
FROM (SELECT COALESCE(concurrency_key, '') AS concurrency_key, 1 AS is_running FROM executions
  WHERE project_id = :project_id AND queue_name = :queue_name AND phase IN ('running', 'cancelling') AND gate = 1
  UNION ALL SELECT COALESCE(concurrency_key, ''), 0 FROM executions
  WHERE project_id = :project_id AND queue_name = :queue_name AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL) AS found
GROUP BY concurrency_key ORDER BY running DESC, queued DESC, concurrency_key LIMIT :limit;

-- name: count_questions
SELECT COUNT(*) AS waiting, MIN(opened_at_us) AS oldest_at_us, MIN(CASE WHEN expires_at_us > :now_us THEN expires_at_us END) AS nearest_expiry_at_us
FROM waits WHERE project_id = :project_id AND state = 'open' AND data IS NOT NULL;

-- name: count_workers
SELECT COUNT(CASE WHEN w.embedded = 1 OR w.lease_until_us > :now_us THEN 1 END) AS online,
  COUNT(CASE WHEN w.embedded <> 1 AND w.lease_until_us <= :now_us THEN 1 END) AS lapsed
FROM workers w LEFT JOIN push_workers p ON p.id = w.id WHERE w.project_id = :project_id AND COALESCE(p.state, 'online') = 'online';

-- text: stuck
id, workflow_id, deployment_id, phase, moved_at_us AS at_us, error

-- name: blocked_executions
SELECT {= stuck} FROM executions WHERE project_id = :project_id AND phase IN ('waiting', 'blocked') AND phase = 'blocked' LIMIT :limit;

-- name: held_executions
SELECT {= stuck} FROM executions WHERE project_id = :project_id AND phase = 'held' LIMIT :limit;

-- name: failed_of_workflow
-- The newest that no retry has replaced.
SELECT id, workflow_id, deployment_id, phase, completed_at_us AS at_us, error FROM executions
WHERE project_id = :project_id AND workflow_id = :workflow_id AND phase = 'failed' AND completed_at_us IS NOT NULL
  AND retried_as IS NULL ORDER BY id DESC LIMIT :limit;

-- name: failed_of_deployment
SELECT id, workflow_id, deployment_id, phase, completed_at_us AS at_us, error FROM executions
WHERE project_id = :project_id AND phase = 'failed' AND id >= :least AND deployment_id = :deployment_id
  AND completed_at_us >= :since_us AND (:retried = 1 OR retried_as IS NULL) ORDER BY id DESC LIMIT :limit;

-- name: lost_workers
SELECT COUNT(*) FROM ended_workers
WHERE project_id = :project_id AND deployment_id = :deployment_id AND lost = 1 AND ended_at_us >= :since_us;

-- name: deployment_before
-- Which deployment new executions went to until they went to this one, as far as is known.
SELECT id, superseded_at_us FROM deployments WHERE project_id = :project_id AND id <> :deployment_id
  AND superseded_at_us < :superseded_at_us ORDER BY superseded_at_us DESC, id LIMIT 1;

-- name: unserved_of_project
-- As `unserved`.
SELECT e.deployment_id, COUNT(*) AS n, MIN(e.ready_at_us) AS since_us, MIN(e.id) AS id FROM (
  SELECT project_id, id, deployment_id, python, needs_protocol, ready_at_us FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, id, deployment_id, python, needs_protocol, ready_at_us FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL) AS e
WHERE e.ready_at_us < :before_us AND NOT EXISTS (
  SELECT 1 FROM workers w WHERE w.project_id = e.project_id AND w.deployment_id = e.deployment_id
    AND (e.python IS NULL OR w.python = e.python) AND (e.needs_protocol IS NULL OR w.protocol >= e.needs_protocol)
    AND (w.embedded <> 2 OR w.lease_until_us > :before_us))
GROUP BY e.deployment_id ORDER BY e.deployment_id LIMIT :limit;

-- name: newest_deliveries
SELECT execution_id, NULLIF(webhook_id, '') AS webhook_id, url, state, tries, tried_at_us, status FROM deliveries
WHERE project_id = :project_id ORDER BY created_at_us DESC, execution_id DESC, deliveries.webhook_id DESC LIMIT :limit;

-- name: skipped_fires
SELECT s.id AS schedule_id, s.workflow_id, s.key, COUNT(*) AS n, MIN(f.slot_us) AS since_us, MAX(f.slot_us) AS last_us, MAX(f.reason) AS reason
FROM schedules s JOIN schedule_fires f ON f.schedule_id = s.id AND f.slot_us >= :from_us AND f.state = 'skipped'
WHERE s.project_id = :project_id AND s.status = 'active' GROUP BY s.id, s.workflow_id, s.key;

-- name: new_deployments
SELECT id, created_at_us FROM deployments WHERE project_id = :project_id AND created_at_us >= :from_us
ORDER BY created_at_us DESC LIMIT :limit;
