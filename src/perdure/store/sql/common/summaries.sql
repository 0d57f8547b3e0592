-- Rows of lists, and what says where their executions stand. Each query answers for a page of executions.

-- name: summaries
SELECT id, workflow_id, key, phase, {MAX|GREATEST}(moved_at_us, COALESCE(completed_at_us, 0)) AS since_us,
  CASE WHEN due_at_us < 253402300799000000 THEN due_at_us END AS summary_due_at_us, created_at_us, started_at_us, completed_at_us,
  losses, retry_count + 1 AS tries,
  CASE WHEN OCTET_LENGTH(progress) <= :progress_bytes_max THEN progress END AS progress, deployment_id, queue_name, concurrency_key,
  CASE WHEN {= is_paused} THEN 1 ELSE 0 END AS paused, assigned_to_worker, parent_execution_id, root_execution_id, batch_id,
  COALESCE(session_id, id) AS session_id, user_id, tags, forked_from, forked_at_step, retried_as,
  SUBSTR(error, 1, 1000) AS error, gate, timer_key, python, needs_protocol,
  CASE WHEN phase = 'queued' AND due_at_us >= 253402300799000000 THEN 1 ELSE 0 END AS waits_for_turn,
  due_at_us, cancelled_at_us, cancelled_by, run_timeout_seconds, ready_at_us, rank
FROM executions WHERE project_id = :project_id AND id {= of_page} ORDER BY id DESC;

-- name: first_waits
-- Of each execution the oldest open wait, and how many there are.
SELECT w.execution_id, w.key, w.topic, CASE WHEN OCTET_LENGTH(w.match) <= :bytes_max THEN w.match END AS match,
  CASE WHEN OCTET_LENGTH(w.data) <= :bytes_max THEN w.data END AS data, w.opened_at_us, w.expires_at_us, w.event_type,
  w.batch_id, o.amount
FROM (SELECT i.value AS id, (SELECT COUNT(*) FROM waits c WHERE c.execution_id = i.value AND c.state = 'open') AS amount,
    (SELECT f.key FROM waits f WHERE f.execution_id = i.value AND f.state = 'open' ORDER BY f.opened_at_us, f.key LIMIT 1) AS key
  FROM {json_each(:ids) i|json_array_elements_text(:ids::JSON) i (value)}) o
JOIN waits w ON w.execution_id = o.id AND w.key = o.key;

-- text: newest_children
(SELECT c.id, c.completed_at_us FROM executions c WHERE c.project_id = :project_id AND c.parent_execution_id = i.value
      ORDER BY c.id DESC LIMIT :children) found WHERE found.completed_at_us IS NULL

-- name: open_among_children
-- Of each execution how many of its newest children are open, and the newest of these.
SELECT o.parent_id, o.amount, e.id, e.workflow_id
FROM (SELECT i.value AS parent_id, (SELECT COUNT(*) FROM {= newest_children}) AS amount,
    (SELECT MAX(found.id) FROM {= newest_children}) AS id
  FROM {json_each(:ids) i|json_array_elements_text(:ids::JSON) i (value)}) o
JOIN executions e ON e.project_id = :project_id AND e.id = o.id;

-- name: last_rows
-- Of running executions the newest outcome or failed try, of others the newest failed try, among their last rows.
SELECT o.id AS execution_id, j.seq, j.at_us, j.kind, j.key, j.tries,
  CASE WHEN j.kind = 'step_failed' AND OCTET_LENGTH(j.value) <= :bytes_max THEN j.value END AS value
FROM (SELECT e.id, (SELECT MAX(x.seq) FROM journal x WHERE x.execution_id = e.id AND x.seq >= e.next_seq - :rows
      AND (x.kind = 'step_failed' OR e.phase = 'running' AND x.kind IN ('step', 'timer', 'event', 'resume', 'child_started',
        'child', 'published', 'sent', 'transcript', 'message', 'cancel_asked'))) AS seq
  FROM executions e WHERE e.project_id = :project_id AND e.id {= of_page}) o
JOIN journal j ON j.execution_id = o.id AND j.seq = o.seq;

-- name: long_steps
-- Of each execution the step that has run for the longest time.
SELECT o.id, o.key FROM (
  SELECT e.id, (SELECT p.key FROM pending_calls p WHERE p.execution_id = e.id AND p.attempt = e.attempt AND p.kind = 'step'
      AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = e.id AND j.key = p.key AND j.kind = 'step'
        AND ({= outcomes}))
    ORDER BY p.since_us, p.key LIMIT 1) AS key
  FROM executions e WHERE e.project_id = :project_id AND e.id {= of_page}) o
WHERE o.key IS NOT NULL;

-- name: limits_of_queues
SELECT name, total_limit, concurrency_limit FROM queues WHERE project_id = :project_id AND name {= of_page};

-- name: held_of_queues
SELECT queue_name, COALESCE(concurrency_key, ''), COUNT(*) FROM executions WHERE project_id = :project_id
  AND queue_name {= of_page} AND phase IN ('running', 'cancelling') AND gate = 1
GROUP BY queue_name, COALESCE(concurrency_key, '');

-- name: numbered_pauses
SELECT z.number, z.kind, z.name, z.paused_at_us, z.paused_by,
  CASE WHEN z.concurrency_key <> '' THEN z.concurrency_key END AS concurrency_key, z.note, z.until_us
FROM pauses z WHERE z.project_id = :project_id AND z.state <> 'ending' AND z.number IN (SELECT e.gate FROM executions e
  WHERE e.project_id = :project_id AND e.id {= of_page} AND e.phase = 'queued' AND e.gate > 1);

-- name: served_deployments
SELECT w.deployment_id, w.python, MAX(w.protocol) FROM workers w WHERE w.project_id = :project_id
  AND w.deployment_id {= of_page}
GROUP BY w.deployment_id, w.python;
