-- Why an execution is where it is: the facts.

-- name: verdicts
-- The rules of admission that a queued execution fulfils, for a kind of worker.
SELECT {= verdicts} FROM executions WHERE project_id = :project_id AND id = :id;

-- name: ready_before
-- How many ready executions come before one in the order of claims.
SELECT COUNT(*) FROM (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
  AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL AND (rank, ready_at_us, id) < (:rank, :ready_at_us, :id)
  LIMIT :limit) AS rows;

-- name: ready_before_in_group
SELECT COUNT(*) FROM (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
  AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL AND queue_name = :queue_name
  AND COALESCE(concurrency_key, '') = :concurrency_key AND (rank, ready_at_us, id) < (:rank, :ready_at_us, :id)
  LIMIT :limit) AS rows;

-- name: ready_beside_group
-- How many ready executions of a deployment are of other groups. With :mixed, also those behind one in its group.
SELECT COUNT(*) FROM (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
    AND (queue_name <> :queue_name OR COALESCE(concurrency_key, '') <> :concurrency_key
      OR (:mixed = 1 AND (rank, ready_at_us, id) > (:rank, :ready_at_us, :id)))
  LIMIT :limit) AS rows;

-- text: holder
id AS execution_id, workflow_id, phase, assigned_to_worker AS worker_id, (SELECT j.at_us FROM journal j
  WHERE j.execution_id = executions.id AND j.kind = 'claimed' ORDER BY j.seq DESC LIMIT 1) AS since_us

-- name: holders_under_limit
-- Running executions of a limited queue, or of one of its keys: some of them, because an order would read all.
SELECT {= holder} FROM executions WHERE project_id = :project_id AND queue_name = :queue_name
  AND phase IN ('running', 'cancelling') AND gate = 1
  AND (:concurrency_key{::TEXT} IS NULL OR COALESCE(concurrency_key, '') = :concurrency_key) LIMIT :limit;

-- name: holders_at_worker
SELECT {= holder} FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') ORDER BY id LIMIT :limit;

-- name: explained_waits
SELECT key, topic, match, CASE WHEN OCTET_LENGTH(data) <= :bytes_max THEN data END AS data, opened_at_us, expires_at_us,
  event_type, batch_id
FROM waits WHERE execution_id = :execution_id AND state = 'open' AND (:key{::TEXT} IS NULL OR key = :key)
ORDER BY opened_at_us, key LIMIT :limit;

-- name: phases_of
SELECT id, phase FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: newest_acts
SELECT seq, at_us, action, key, acted_by, note FROM acts WHERE execution_id = :execution_id ORDER BY seq DESC LIMIT :limit;

-- name: newest_entries
-- The newest rows of some kinds, of one key if it is given. With `failed`, only failures.
SELECT {= entry} FROM journal j WHERE execution_id = :execution_id
  AND kind {IN (SELECT value FROM json_each(:kinds))|= ANY(ARRAY(SELECT json_array_elements_text(:kinds::JSON)))}
  AND (:key{::TEXT} IS NULL OR key = :key) AND (:failed = 0 OR ok = 0)
ORDER BY seq DESC LIMIT :limit;

-- name: count_losses
SELECT COUNT(CASE WHEN kind = 'lost' THEN 1 END) AS lost, COUNT(CASE WHEN kind = 'released' THEN 1 END) AS released,
  MAX(CASE WHEN kind = 'lost' THEN at_us END) AS last_lost_at_us
FROM journal WHERE execution_id = :execution_id;

-- name: compared_run
SELECT id, deployment_id, python, queue_name, {= payload_size} AS payload_bytes, completed_at_us,
  CASE WHEN {= payload_size} <= :bytes_max THEN {= payload} END AS payload
FROM executions WHERE project_id = :project_id AND id = :id;

-- name: completed_before
SELECT id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND phase = 'completed'
  AND completed_at_us IS NOT NULL AND id < :id ORDER BY id DESC LIMIT 1;

-- name: shapes_of_steps
SELECT seq, at_us, kind, key, name, fingerprint FROM journal WHERE execution_id = :execution_id AND kind = 'step' ORDER BY seq LIMIT :limit;

-- name: count_steps
SELECT COUNT(*) FROM journal WHERE execution_id = :execution_id AND kind = 'step';

-- name: path_execution
SELECT {= brief}, next_seq FROM executions WHERE project_id = :project_id AND id = :id;
