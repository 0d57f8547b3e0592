-- Queues.

-- name: read_queue
SELECT name, concurrency_limit, total_limit FROM queues
WHERE project_id = :project_id AND name = :name;

-- name: lock_queue
-- holds: queue=name
-- As read_queue, locked before `group_room` counts. No row: another server is counting at this moment.
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
ON CONFLICT (project_id, name) DO UPDATE SET concurrency_limit = excluded.concurrency_limit,
  total_limit = excluded.total_limit RETURNING name;

-- name: list_queues
-- One branch per index of open executions, as in count_phases.
SELECT found.name, found.concurrency_limit, found.total_limit, found.queued, found.running, z.kind AS pause_kind, z.name AS pause_name,
  z.paused_at_us AS pause_paused_at_us, z.paused_by AS pause_paused_by, NULL AS pause_concurrency_key, z.note AS pause_note,
  z.until_us AS pause_until_us, COALESCE((SELECT COUNT(*) FROM executions WHERE {= is_paused} AND gate = z.number), 0) AS pause_held
FROM (
  SELECT name, MAX(key_limit) AS concurrency_limit, MAX(all_limit) AS total_limit, SUM(is_queued) AS queued,
    SUM(is_running) AS running
  FROM (
    SELECT name, concurrency_limit AS key_limit, total_limit AS all_limit, 0 AS is_queued, 0 AS is_running
    FROM queues q WHERE project_id = :project_id AND ({= has_limits})
    UNION ALL SELECT name, NULL, NULL, 0, 0 FROM pauses WHERE project_id = :project_id AND kind = 'queue' AND state <> 'ending'
    UNION ALL SELECT queue_name, NULL, NULL, 1, 0 FROM executions
    WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
    UNION ALL SELECT queue_name, NULL, NULL, 1, 0 FROM executions
    WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
    UNION ALL SELECT queue_name, NULL, NULL, 1, 0 FROM executions WHERE project_id = :project_id AND {= is_paused}
    UNION ALL SELECT queue_name, NULL, NULL, 0, 1 FROM executions
    WHERE COALESCE(project_id, '') = :project_id AND phase IN ('running', 'cancelling')) AS rows
  WHERE :name{::TEXT} IS NULL OR name = :name
  GROUP BY name) found
LEFT JOIN pauses z ON z.project_id = :project_id AND z.kind = 'queue' AND z.name = found.name AND z.concurrency_key = ''
  AND z.state <> 'ending'
ORDER BY found.name;

-- name: mark_limited
-- picks: executions of one queue; run when a queue gains or loses its limits, which is rare
-- The end of a pause computes the gates that it has set.
UPDATE executions SET gate = :gate
WHERE project_id = :project_id AND queue_name = :name AND gate = 1 - :gate AND (:gate = 0 OR cancelled_by IS NULL) AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND gate = 1
    AND due_at_us IS NULL AND queue_name = :name
  UNION SELECT id FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION SELECT id FROM executions WHERE phase IN ('running', 'cancelling'){)|))}
RETURNING id;

-- name: unmarked_queues
-- Limited queues with an open execution that is not marked as limited. Executions that wake only to clean up are
-- admitted beyond the limit.
SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase = 'queued' AND e.gate = 0 AND e.due_at_us IS NULL AND e.cancelled_by IS NULL
  AND ({= has_limits})
UNION SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase = 'queued' AND e.gate = 0 AND e.due_at_us IS NOT NULL AND e.cancelled_by IS NULL
  AND ({= has_limits})
UNION SELECT e.project_id, e.queue_name FROM executions e JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase IN ('running', 'cancelling') AND e.gate = 0 AND e.cancelled_by IS NULL
  AND ({= has_limits});

-- text: ready
SELECT id, workflow_id, deployment_id, key, concurrency_key, ready_at_us, rank FROM executions
  WHERE project_id = :project_id AND queue_name = :queue_name

-- name: next_in_queue
-- Also what pauses hold. Each part is cut, because any number may be ready.
SELECT id, workflow_id, deployment_id, key, concurrency_key, ready_at_us FROM (
  SELECT id, workflow_id, deployment_id, key, concurrency_key, ready_at_us, rank FROM ({= ready} AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL LIMIT :looked) AS rows
  UNION ALL SELECT id, workflow_id, deployment_id, key, concurrency_key, ready_at_us, rank FROM ({= ready} AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL LIMIT :looked) AS rows
  UNION ALL SELECT id, workflow_id, deployment_id, key, concurrency_key, ready_at_us, rank FROM ({= ready} AND {= is_paused} LIMIT :looked) AS rows) AS found
ORDER BY rank, ready_at_us, id LIMIT :limit;

-- name: many_in_queue
-- Whether more executions are ready than `next_in_queue` sorts.
SELECT 1 FROM (
  SELECT id FROM (SELECT id FROM executions WHERE project_id = :project_id AND queue_name = :queue_name
    AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL LIMIT 1 OFFSET :looked) AS rows
  UNION ALL SELECT id FROM (SELECT id FROM executions WHERE project_id = :project_id AND queue_name = :queue_name
    AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL LIMIT 1 OFFSET :looked) AS rows) AS found LIMIT 1;
