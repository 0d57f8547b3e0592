-- Executions of push workers. Their reports carry no attempt, and most of them no worker: they count while a push
-- worker of the project holds the execution.

-- name: insert_extras
-- holds: execution=execution_id
INSERT INTO execution_extras (execution_id, otel_traceparent, initial_state, channel_context)
VALUES (:execution_id, :otel_traceparent, :initial_state, :channel_context);

-- name: put_span_id
-- holds: execution=execution_id
INSERT INTO execution_extras (execution_id, otel_span_id) VALUES (:execution_id, :otel_span_id)
ON CONFLICT (execution_id) DO UPDATE SET otel_span_id = excluded.otel_span_id;

-- name: put_final_state
-- holds: execution=execution_id
INSERT INTO execution_extras (execution_id, final_state) VALUES (:execution_id, :final_state)
ON CONFLICT (execution_id) DO UPDATE SET final_state = excluded.final_state;

-- name: delete_extras
-- holds: execution=id
DELETE FROM execution_extras WHERE execution_id = :id;

-- name: put_output_schema
-- holds: execution=id
UPDATE executions SET output_schema_name = :output_schema_name WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: push_details
-- Facts that a push worker gets in addition to the claim.
SELECT e.step_key, e.run_timeout_seconds, r.workflow_id AS root_workflow_id, x.otel_traceparent, x.otel_span_id, x.initial_state,
  x.channel_context
FROM executions e
LEFT JOIN executions r ON r.project_id = e.project_id AND r.id = COALESCE(e.root_execution_id, e.id)
LEFT JOIN execution_extras x ON x.execution_id = e.id
WHERE e.project_id = :project_id AND e.id = :id;

-- text: pushed
e.phase, e.attempt, e.assigned_to_worker AS worker_id, e.report_number, e.next_seq, e.retry_count, e.acked, e.due_at_us,
e.deployment_id, COALESCE(d.push, 0) AS push, p.id AS push_worker_id, COALESCE(e.root_execution_id, e.id) AS root_id,
COALESCE(r.workflow_id, e.workflow_id) AS root_workflow_id
FROM executions e
LEFT JOIN push_workers p ON p.id = e.assigned_to_worker
LEFT JOIN deployments d ON d.project_id = e.project_id AND d.id = e.deployment_id
LEFT JOIN executions r ON r.project_id = e.project_id AND r.id = COALESCE(e.root_execution_id, e.id)
WHERE e.project_id = :project_id AND e.id = :id

-- name: lock_pushed
-- holds: execution=id
-- The state of an execution, for its push worker's reports; `p.id` is NULL without a holding push worker.
SELECT {= pushed} {FOR UPDATE OF e};

-- name: read_pushed
SELECT {= pushed};

-- name: record_pushed
-- holds: execution=id
-- I2: the first outcome of a step is the only one.
UPDATE executions SET next_seq = next_seq + 1, acked = CASE WHEN acked = 0 THEN 1 ELSE acked END, losses = 0,
  undelivered = 0, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling')
  AND EXISTS (SELECT 1 FROM push_workers p WHERE p.id = executions.assigned_to_worker)
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = :key AND j.kind = 'step')
RETURNING {= moved};

-- name: next_row
-- holds: execution=id
-- A seq for a row about an execution that stays in its phase.
UPDATE executions SET next_seq = next_seq + 1, losses = 0, undelivered = 0, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id RETURNING {= moved};

-- name: accept_push
-- holds: execution=execution_id
UPDATE executions SET acked = 1
WHERE project_id = :project_id AND id = :execution_id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND acked = 0 RETURNING id;

-- name: tell_cancel
-- holds: execution=execution_id
-- One server tells the worker, and the rest see that it does.
UPDATE executions SET acked = 2
WHERE project_id = :project_id AND id = :execution_id AND phase = 'cancelling' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND acked < 2 RETURNING id;

-- name: untell_cancel
-- holds: execution=execution_id
UPDATE executions SET acked = 1
WHERE project_id = :project_id AND id = :execution_id AND phase = 'cancelling' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND acked = 2 RETURNING id;

-- name: outcomes_of_key
-- The journal's rows under a key, in any order. The list of kinds must equal the index's, word for word.
SELECT j.seq, j.at_us, j.kind, j.key, j.name, j.fingerprint, j.ok, {= value} AS value FROM journal j
WHERE j.execution_id = :execution_id AND j.key = :key AND ({= outcomes});

-- name: recorded_runs
-- The attempts and the begins of the runs whose outcomes stand under a key.
SELECT j.kind, j.attempt, j.started_at_us FROM journal j
WHERE j.execution_id = :execution_id AND j.key = :key AND ({= outcomes});

-- name: outcome_sizes
-- All outcomes of an execution, with the sizes of their values.
SELECT j.seq, j.kind, j.key, {= value_size} FROM journal j
WHERE j.execution_id = :execution_id AND j.key IS NOT NULL AND ({= outcomes}) LIMIT :limit;

-- name: outcomes_at
SELECT j.seq, j.at_us, j.kind, j.key, j.name, j.fingerprint, j.ok, {= value} AS value FROM journal j
WHERE j.execution_id = :execution_id
  AND j.seq {IN (SELECT value FROM json_each(:seqs))|= ANY(ARRAY(SELECT json_array_elements_text(:seqs::JSON)::BIGINT))};

-- name: step_of_pushed
-- The most frequent question of push workers in one query: an execution, its holder, and the rows under a key; one row
-- with NULL in front if there are none.
SELECT j.seq, j.at_us, j.kind, j.attempt AS row_attempt, j.key, j.name, j.fingerprint, j.ok, {= value} AS value, e.attempt, e.acked,
  p.id AS push_worker_id
FROM executions e
LEFT JOIN push_workers p ON p.id = e.assigned_to_worker
LEFT JOIN journal j ON j.execution_id = e.id AND j.key = :key AND ({= outcomes})
WHERE e.project_id = :project_id AND e.id = :id;

-- name: due_before
-- The due time of an execution that was suspended before this row.
SELECT fingerprint FROM journal WHERE execution_id = :execution_id AND kind = 'waiting' AND seq < :seq ORDER BY seq DESC LIMIT 1;

-- name: output_schema_of
SELECT output_schema_name FROM executions WHERE project_id = :project_id AND id = :id;

-- name: batch_children
SELECT id, workflow_id, phase, {= result} AS result, error, output_schema_name FROM executions
WHERE project_id = :project_id AND batch_id = :batch_id ORDER BY id;

-- name: any_open_of_batch
SELECT id FROM executions
WHERE project_id = :project_id AND batch_id = :batch_id AND batch_id IS NOT NULL AND completed_at_us IS NULL LIMIT 1;

-- name: batch_waited_for
SELECT state FROM waits WHERE execution_id = :execution_id AND key = :key AND batch_id = :batch_id;

-- name: open_batch_wait
-- holds: execution=execution_id
INSERT INTO waits (execution_id, key, project_id, state, batch_id, opened_at_us)
VALUES (:execution_id, :key, :project_id, 'open', :batch_id, :now_us)
ON CONFLICT (execution_id, key) DO UPDATE SET state = 'open', batch_id = excluded.batch_id, data = NULL;

-- name: set_wait_expiry
-- holds: execution=execution_id
UPDATE waits SET expires_at_us = :expires_at_us WHERE execution_id = :execution_id AND key = :key;

-- name: lock_asking
-- holds: execution=id
-- Whether a push execution may ask on a topic: it is open, and the topic is its run's.
SELECT e.id FROM executions e
JOIN deployments d ON d.project_id = e.project_id AND d.id = e.deployment_id AND d.push = 1
JOIN executions r ON r.project_id = e.project_id AND r.id = COALESCE(e.root_execution_id, e.id)
WHERE e.project_id = :project_id AND e.id = :id AND e.completed_at_us IS NULL
  AND :topic = 'workflow/' || r.workflow_id || '/' || r.id {FOR UPDATE OF e};

-- name: alone_in_run
-- A root without descendants.
SELECT e.id FROM executions e WHERE e.project_id = :project_id AND e.id = :id AND NOT EXISTS (
  SELECT 1 FROM executions c WHERE c.project_id = :project_id AND c.root_execution_id = :id);

-- name: ask_question
-- holds: execution=execution_id
INSERT INTO waits (execution_id, key, project_id, state, topic, after_seq, event_type, data, opened_at_us, must_name)
VALUES (:execution_id, :key, :project_id, 'open', :topic, :after_seq, :event_type, :data, :now_us, :must_name)
ON CONFLICT (execution_id, key) DO UPDATE SET state = 'open', topic = excluded.topic, after_seq = excluded.after_seq,
  event_type = excluded.event_type, data = excluded.data, opened_at_us = excluded.opened_at_us,
  must_name = excluded.must_name;

-- name: last_event_of_type
SELECT seq, data, created_at_us FROM events WHERE project_id = :project_id AND topic = :topic AND event_type = :event_type
ORDER BY seq DESC LIMIT 1;

-- name: first_event_of_type
-- Excludes an answer to another execution's question, whose id is a UUID of version 5 (`answer_wait`).
SELECT seq, data FROM events
WHERE project_id = :project_id AND topic = :topic AND seq > :after AND event_type = :event_type AND SUBSTR(id, 15, 1) <> '5'
ORDER BY seq LIMIT 1;

-- name: read_event
SELECT id, event_type, created_at_us FROM events WHERE project_id = :project_id AND topic = :topic AND seq = :seq;

