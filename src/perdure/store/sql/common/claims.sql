-- Claims. `rank` orders admission: woken executions first, then by priority. A fresh execution has 1000000 - priority,
-- a woken one -priority.

-- name: ready_sizes
-- Payload sizes of the executions that claim_executions would pick.
SELECT {= payload_size} FROM executions
WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND {= admitted}
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- name: ready_sizes_between
SELECT {= payload_size} FROM executions
WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND {= admitted}
  AND (rank, ready_at_us) >= (:rank, :ready_from_us) AND rank < :rank_before
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- name: ready_sizes_limited
SELECT {= payload_size} FROM executions
WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND {= admitted}
  AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- text: claimed
phase = CASE WHEN cancelled_by IS NULL THEN 'running' ELSE 'cancelling' END,
  attempt = attempt + 1, assigned_to_worker = :worker_id, acked = 0, claim_id = :claim_id, report_number = 0,
  started_at_us = COALESCE(started_at_us, {MAX|GREATEST}(moved_at_us, :now_us)), python = COALESCE(python, :python),
  next_seq = next_seq + 1,
  due_at_us = CASE WHEN cancelled_by IS NOT NULL THEN :now_us{::BIGINT} + :grace_us ELSE :now_us + run_timeout_seconds * 1000000 END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)

-- text: handed_out
id, workflow_id, attempt, {= payload} AS payload, created_at_us, losses + undelivered > 0 AS ack_first, retry_count,
  phase = 'cancelling' AS cancelling, key, queue_name, concurrency_key, parent_execution_id, root_execution_id,
  deployment_id, COALESCE(session_id, id) AS session_id, user_id, tags, seed_id, keys_id,
  ({= budgeted}) AS budgeted,
  next_seq - 1 AS seq, moved_at_us AS at_us, parked_worker, parked_seq, rank, ready_at_us

-- name: claim_executions
-- picks: executions, the first ready ones of one deployment
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND {= admitted}
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: claim_between
-- picks: executions, the first ready ones of one deployment from a place in their order on
-- For claims on a database that cannot clean up: it skips the rows before that place.
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND {= admitted}
    AND (rank, ready_at_us) >= (:rank, :ready_from_us) AND rank < :rank_before
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: claim_limited
-- picks: executions, the first ready ones of one deployment, queue and concurrency key
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND {= admitted}
    AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: next_limited_group
-- The next (queue, key) with a ready execution, after the given one: a skip scan with one seek per group.
SELECT queue_name, COALESCE(concurrency_key, '') FROM executions
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
  AND (queue_name, COALESCE(concurrency_key, '')) > (:queue_name, :concurrency_key)
ORDER BY queue_name, COALESCE(concurrency_key, '') LIMIT 1;

-- name: group_room
-- The limits of a (queue, key) group, and how many executions hold places under each.
SELECT q.total_limit, CASE WHEN q.total_limit IS NOT NULL THEN (SELECT COUNT(*) FROM executions
    WHERE project_id = :project_id AND queue_name = :queue_name AND phase IN ('running', 'cancelling') AND gate = 1) END AS held_of_queue,
  q.concurrency_limit AS key_limit, CASE WHEN q.concurrency_limit IS NOT NULL THEN (SELECT COUNT(*) FROM executions
    WHERE project_id = :project_id AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
      AND phase IN ('running', 'cancelling') AND gate = 1) END AS held_of_key
FROM queues q WHERE q.project_id = :project_id AND q.name = :queue_name;

-- name: deliver_and_claim
-- holds: execution=id
-- sees: journal execution_id=id key=key
-- Wakes an execution (deliver_outcome) and claims it (claim_executions) at once, when its outcome arrives while the
-- worker that parked it waits for work. `next_seq` counts both; `ready_at_us` still says since when it waited. It
-- checks the waiting claim like check_waiting_claim. COALESCE around the guards keeps the planner from other indexes. The
-- ready executions are also wrapped, because PostgreSQL would make a join of them, which with its locks costs as much as
-- the rest.
UPDATE executions SET phase = 'running', attempt = attempt + 1, assigned_to_worker = :worker_id, acked = 0,
  claim_id = :claim_id, report_number = 0, python = COALESCE(python, :python), next_seq = next_seq + 2,
  due_at_us = :now_us + run_timeout_seconds * 1000000, rank = -priority,
  losses = 0, undelivered = 0, gate = 0, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND COALESCE(phase = 'waiting' AND parked_worker = :worker_id
  AND cancelled_by IS NULL AND deployment_id = :deployment_id AND ({= rule_python}) AND ({= rule_protocol})
  AND ({= gate}) = 0, {0|FALSE})
  AND (:started{::BYTEA} IS NULL OR EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = :id AND s.key = :key
    AND s.kind = 'child_started' AND s.value = :started)
    AND NOT EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = :id AND s.key = :key AND s.kind = 'child'))
  AND (SELECT 1 FROM workers w WHERE w.id = :worker_id AND w.project_id = :project_id AND w.deployment_id = :deployment_id
    AND w.python = :python AND COALESCE(w.last_claim_id, '') < :claim_id AND NOT COALESCE({= anything_ready}, {0|FALSE})
    {FOR KEY SHARE OF w SKIP LOCKED}) = 1
RETURNING {= handed_out}, (SELECT w.embedded FROM workers w WHERE w.id = :worker_id) AS embedded;

-- name: claimed_before
-- The batch of a repeated claim, whose reply was lost.
SELECT {= handed_out}
FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') AND claim_id = :claim_id AND acked = 0
ORDER BY id;

-- name: unheard_of
-- picks: unacknowledged executions of a claim
SELECT id, attempt FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') AND phase || '' = 'running' AND claim_id = :claim_id AND acked = 0
ORDER BY id {FOR UPDATE SKIP LOCKED};
