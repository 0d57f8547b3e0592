-- Queues.

-- name: read_queue
SELECT concurrency_limit, total_limit FROM queues WHERE project_id = :project_id AND name = :name;

-- name: lock_queue
-- holds: queue=name
-- As read_queue, locked to count the room under a limit. No row: another server is counting at this moment.
SELECT concurrency_limit, total_limit FROM queues WHERE project_id = :project_id AND name = :name {FOR UPDATE SKIP LOCKED};

-- name: begin_limits
-- alone: starts, wakes and claims read whether the queue has limits, and act by it
-- Precedes a queue's first limit. The driver needs the lock, and has it by now.
SELECT 1;

-- name: insert_queue
-- holds: queue=name
INSERT INTO queues (project_id, name, concurrency_limit, total_limit)
VALUES (:project_id, :name, :concurrency_limit, :total_limit) ON CONFLICT (project_id, name) DO NOTHING RETURNING name;

-- name: upsert_queue
-- holds: queue=name
INSERT INTO queues (project_id, name, concurrency_limit, total_limit)
VALUES (:project_id, :name, :concurrency_limit, :total_limit)
ON CONFLICT (project_id, name) DO UPDATE
SET concurrency_limit = excluded.concurrency_limit, total_limit = excluded.total_limit RETURNING name;

-- name: mark_limited
-- picks: executions of one queue; run when a queue gains or loses its limits, which is rare
UPDATE executions SET limited = :limited
WHERE project_id = :project_id AND queue_name = :name AND limited <> :limited AND (:limited = 0 OR cancelled_by IS NULL) AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND limited = 0 AND due_at_us IS NULL
  UNION SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND limited = 1
    AND due_at_us IS NULL AND queue_name = :name
  UNION SELECT id FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION SELECT id FROM executions WHERE phase IN ('running', 'cancelling'){)|))}
RETURNING id;

-- name: unmarked_queues
-- Limited queues with an open execution that is not marked as limited. Executions that wake only to clean up are
-- admitted beyond the limit.
SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase = 'queued' AND e.limited = 0 AND e.due_at_us IS NULL AND e.cancelled_by IS NULL
  AND ({= has_limits})
UNION SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase = 'queued' AND e.limited = 0 AND e.due_at_us IS NOT NULL AND e.cancelled_by IS NULL
  AND ({= has_limits})
UNION SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase IN ('running', 'cancelling') AND e.limited = 0 AND e.cancelled_by IS NULL
  AND ({= has_limits});

-- name: place_in_queue
-- For an execution that is ready and whose queue has limits.
SELECT e.queue_name, COALESCE(e.concurrency_key, ''), q.concurrency_limit, q.total_limit
FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.project_id = :project_id AND e.id = :id AND COALESCE(e.phase = 'queued' AND e.limited = 1 AND e.due_at_us IS NULL, {0|FALSE});

-- name: holders_of_queue
SELECT id FROM executions
WHERE project_id = :project_id AND queue_name = :queue_name AND phase IN ('running', 'cancelling') AND limited = 1
LIMIT :limit;

-- name: holders_of_key
SELECT id FROM executions
WHERE project_id = :project_id AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
  AND phase IN ('running', 'cancelling') AND limited = 1 LIMIT :limit;
