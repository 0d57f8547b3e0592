-- Starting executions.

-- name: insert_execution
-- holds: execution=id
-- bulk: created_at_us run_timeout_seconds due_at_us priority rank ready_at_us gate wake_on_cancel attempt started_at_us next_seq; bytes payload tags
INSERT INTO executions ({columns NewExecution}, moved_at_us{, created_number|})
VALUES ({values NewExecution}, :created_at_us{, created_number()|});

-- name: key_gate
SELECT number FROM pauses WHERE project_id = :project_id AND kind = 'key' AND name = :queue_name
  AND concurrency_key = :concurrency_key AND state <> 'ending';

-- name: insert_large_payload
-- holds: execution=execution_id
INSERT INTO large_payloads (execution_id, payload) VALUES (:execution_id, :payload);

-- name: check_waiting_claim
-- holds: waiting_claim=worker_id
-- Whether a waiting claim's worker is unchanged, and no ready execution is ahead of the new ones. No row: the worker is
-- gone or locked; a start does not wait for it.
SELECT w.project_id, w.deployment_id, w.python, w.embedded, {= anything_ready} AS anything, w.last_claim_id
FROM workers w WHERE w.id = :worker_id {FOR KEY SHARE OF w SKIP LOCKED};

-- name: find_started
-- The execution with a key, with the payload unless its size cannot equal :payload_bytes.
SELECT id, created_at_us, CASE WHEN {= payload_size} = :payload_bytes OR {= payload_size} <= :compared_bytes THEN {= payload} END
FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND key = :key
  AND retried_as IS NULL;

-- name: insert_tag
-- holds: execution=execution_id
INSERT INTO execution_tags (project_id, name, value, execution_id) VALUES (:project_id, :name, :value, :execution_id);

-- name: read_parent
-- holds: execution=id
SELECT COALESCE(e.root_execution_id, e.id) AS root_id, COALESCE(e.session_id, e.id) AS session_id, e.user_id, x.channel_context,
  CASE WHEN e.cancelled_by IS NOT NULL AND (e.completed_at_us IS NULL OR e.phase = 'cancelled') THEN 1 ELSE 0 END AS cancelled
FROM executions e
LEFT JOIN execution_extras x ON x.execution_id = e.id
WHERE e.project_id = :project_id AND e.id = :id;

-- name: insert_idempotency
-- holds: idempotency=key
INSERT INTO idempotency (project_id, route, key, body_hash, answer, executions, kept_since_us)
VALUES (:project_id, :route, :key, :body_hash, :answer, :executions, :now_us);

-- name: read_idempotency
SELECT body_hash, answer FROM idempotency WHERE project_id = :project_id AND route = :route AND key = :key;

-- name: oldest_answers
SELECT project_id, route, key, LENGTH(executions) FROM idempotency WHERE kept_since_us < :before_us
ORDER BY kept_since_us LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: ends_of_answer
-- The earliest and the latest end of the executions that an answer names (0 for an open one), and how many are deleted.
-- No JOIN: PostgreSQL would read all executions if it expects a long list.
SELECT MIN(ended_us), MAX(ended_us), COUNT(*) - COUNT(ended_us) FROM (
  SELECT (SELECT COALESCE(completed_at_us, 0) FROM executions WHERE project_id = :project_id AND id = i.value) AS ended_us
  FROM (SELECT executions FROM idempotency WHERE project_id = :project_id AND route = :route AND key = :key) a,
    {json_each(a.executions) i|json_array_elements_text(a.executions::JSON) i (value)}) x;

-- name: keep_answer
-- holds: idempotency=key
UPDATE idempotency SET kept_since_us = :since_us, executions = CASE WHEN :any_open = 1 THEN executions END
WHERE project_id = :project_id AND route = :route AND key = :key;

-- name: drop_answer
-- holds: idempotency=key
DELETE FROM idempotency WHERE project_id = :project_id AND route = :route AND key = :key;
