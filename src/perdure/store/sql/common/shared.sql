-- Texts for queries of several files. A large payload is a row of its own, and empty in `executions`. A large value that
-- equals another of its execution is empty, too (verbs/shared_values.py).
-- Changes of budgets are events for the runs that wait (wire/agents/budgets.py: `topic_of`), not topics of the project's own.

-- text: is_own_topic
t.topic NOT LIKE 'budget/________-____-____-____-____________'

-- text: payload
CASE WHEN OCTET_LENGTH(executions.payload) > 0 THEN executions.payload
    ELSE (SELECT x.payload FROM large_payloads x WHERE x.execution_id = executions.id) END

-- text: execution
id, workflow_id, {= payload} AS payload, created_at_us, retry_count, error, started_at_us, completed_at_us, deployment_id,
  assigned_to_worker, parent_execution_id, root_execution_id, step_key, queue_name, concurrency_key, batch_id, user_id,
  output_schema_name, cancelled_at_us, cancelled_by, run_timeout_seconds, key, phase, attempt, tags, progress, forked_from,
  forked_at_step, retried_as, CASE WHEN due_at_us < 253402300799000000 THEN due_at_us END AS due_at_us

-- text: payload_size
CASE WHEN OCTET_LENGTH(executions.payload) > 0 THEN OCTET_LENGTH(executions.payload)
    ELSE (SELECT OCTET_LENGTH(x.payload) FROM large_payloads x WHERE x.execution_id = executions.id) END

-- text: value
CASE WHEN OCTET_LENGTH(j.value) = 0 THEN (SELECT x.payload FROM large_payloads x WHERE x.execution_id = j.execution_id)
    ELSE j.value END

-- text: value_size
CASE WHEN OCTET_LENGTH(j.value) = 0
    THEN (SELECT OCTET_LENGTH(x.payload) FROM large_payloads x WHERE x.execution_id = j.execution_id)
    ELSE OCTET_LENGTH(j.value) END

-- text: row
seq, at_us, kind, attempt, key, name, fingerprint, ok, {= value} AS value, started_at_us, tries

-- text: brief
id, workflow_id, phase, created_at_us, started_at_us, completed_at_us

-- text: entry
seq, at_us, kind, attempt, key, name, ok, CASE WHEN {= value_size} <= :bytes_max THEN {= value} END AS value,
  started_at_us, tries

-- text: result
CASE WHEN executions.result_seq IS NULL THEN executions.result
    ELSE (SELECT {= value} FROM journal j WHERE j.execution_id = executions.id AND j.seq = executions.result_seq) END

-- text: result_size
CASE WHEN executions.result_seq IS NULL THEN OCTET_LENGTH(executions.result)
    ELSE (SELECT {= value_size} FROM journal j WHERE j.execution_id = executions.id AND j.seq = executions.result_seq) END

-- text: of_page
{IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}

-- text: outcomes
j.kind = 'step' OR j.kind = 'timer' OR j.kind = 'event' OR j.kind = 'resume'
  OR j.kind = 'child_started' OR j.kind = 'child' OR j.kind = 'published' OR j.kind = 'sent'

-- text: budgeted
(SELECT 1 FROM budgets b WHERE b.root_id = COALESCE(executions.root_execution_id, executions.id) LIMIT 1) IS NOT NULL
  OR (SELECT 1 FROM shared_budgets s WHERE s.project_id = executions.project_id LIMIT 1) IS NOT NULL

-- text: anything_ready
EXISTS (SELECT 1 FROM executions e WHERE e.project_id = w.project_id AND e.deployment_id = w.deployment_id
    AND e.phase = 'queued' AND e.gate = 0 AND e.due_at_us IS NULL)

-- text: has_limits
q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL

-- text: is_paused
phase = 'queued' AND gate > 1 AND due_at_us IS NULL

-- text: limits_gate
CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id AND q.name = executions.queue_name
    AND ({= has_limits})) AND cancelled_by IS NULL THEN 1 ELSE 0 END

-- text: pause_gate
CASE WHEN (SELECT 1 FROM pauses z WHERE z.project_id = executions.project_id LIMIT 1) IS NOT NULL THEN COALESCE(
    (SELECT z.number FROM pauses z WHERE z.project_id = executions.project_id AND z.kind = 'deployment'
      AND z.name = executions.deployment_id AND z.concurrency_key = '' AND z.state <> 'ending'),
    (SELECT z.number FROM pauses z WHERE z.project_id = executions.project_id AND z.kind = 'workflow'
      AND z.name = executions.workflow_id AND z.concurrency_key = '' AND z.state <> 'ending'),
    (SELECT z.number FROM pauses z WHERE z.project_id = executions.project_id AND z.kind = 'queue'
      AND z.name = executions.queue_name AND z.concurrency_key = '' AND z.state <> 'ending'),
    (SELECT z.number FROM pauses z WHERE z.project_id = executions.project_id AND z.kind = 'key'
      AND z.name = executions.queue_name AND z.concurrency_key = executions.concurrency_key AND z.state <> 'ending')) END

-- text: gate
COALESCE({= pause_gate}, {= limits_gate})

-- text: time_is_ahead
moved_at_us - 60000000 > :now_us

-- text: end_flags
CASE WHEN (parent_execution_id IS NULL AND (SELECT p.webhooks FROM projects p WHERE p.id = executions.project_id) > 0)
  OR EXISTS (SELECT 1 FROM execution_webhooks x WHERE x.execution_id = executions.id) THEN 1 ELSE 0 END
  + COALESCE((SELECT 2 FROM turns t WHERE t.execution_id = executions.id LIMIT 1), 0)
  + COALESCE((SELECT 4 FROM search_fields s WHERE s.project_id = executions.project_id
    AND s.workflow_id = executions.workflow_id LIMIT 1), 0)

-- text: moved
next_seq - 1 AS seq, moved_at_us AS at_us, attempt, phase, COALESCE(assigned_to_worker, '') AS worker_id,
  deployment_id, gate

-- text: ended
next_seq - 1 AS seq, moved_at_us AS at_us, attempt, workflow_id, parent_execution_id, step_key, batch_id, gate,
  {= end_flags} AS end_flags

-- text: minute
completed_at_us / 60000000 * 60000000

-- text: end_group
{= minute} AS at_us, workflow_id, COALESCE(deployment_id, '') AS deployment_id,
  CASE WHEN queue_name = workflow_id THEN '' ELSE queue_name END AS queue_name, phase,
  CASE WHEN phase = 'completed' AND started_at_us IS NOT NULL THEN CAST(FLOOR(5.770780163555854 * LN(1 +
    {(completed_at_us - started_at_us) / 1000.0|(completed_at_us - started_at_us)::DOUBLE PRECISION / 1000})) AS {INTEGER|BIGINT})
    ELSE -1 END AS took
