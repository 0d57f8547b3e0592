-- Export of ended executions' spans to a collector.

-- name: insert_export_cursor
-- holds: export=project_id
INSERT INTO export_cursors (project_id, ended_at_us, ended_id, looked_at_us, looked_id)
VALUES (:project_id, :now_us, '', :now_us, '') ON CONFLICT (project_id) DO NOTHING;

-- name: read_export_cursor
SELECT ended_at_us FROM export_cursors WHERE project_id = :project_id;

-- name: lock_export_cursor
-- holds: export=project_id
-- No row: another server is choosing at this moment.
SELECT ended_at_us, ended_id, looked_at_us, looked_id FROM export_cursors WHERE project_id = :project_id {FOR UPDATE SKIP LOCKED};

-- name: move_export_cursor
-- holds: export=project_id
UPDATE export_cursors SET ended_at_us = :ended_at_us, ended_id = :ended_id, looked_at_us = :looked_at_us,
  looked_id = :looked_id
WHERE project_id = :project_id RETURNING project_id;

-- name: lapsed_exports
-- Claimed, but not sent in time.
SELECT execution_id FROM trace_exports WHERE project_id = :project_id AND sent = 0 AND claimed_until_us <= :now_us
ORDER BY claimed_until_us LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: ended_exports
-- Executions that ended after a place and up to a time, in order; NULL marks untaken ones. Taken ones are answered,
-- too, because the caller counts all rows that were read.
SELECT completed_at_us, id, (
  SELECT x.sent FROM trace_exports x WHERE x.project_id = executions.project_id AND x.execution_id = executions.id)
FROM executions
WHERE project_id = :project_id AND (completed_at_us, id) > (:after_us, :after_id) AND completed_at_us <= :upto_us
ORDER BY completed_at_us, id LIMIT :limit;

-- name: insert_export
-- holds: export=project_id
INSERT INTO trace_exports (project_id, execution_id, ended_at_us, claimed_until_us, sent)
VALUES (:project_id, :execution_id, :ended_at_us, :claimed_until_us, 0);

-- name: claim_export
-- holds: export=project_id
UPDATE trace_exports SET claimed_until_us = :claimed_until_us
WHERE project_id = :project_id AND execution_id = :execution_id AND sent = 0 RETURNING execution_id;

-- name: note_export
-- holds: export=project_id
UPDATE trace_exports SET sent = 1 WHERE project_id = :project_id AND execution_id = :execution_id RETURNING execution_id;

-- name: forget_exports
-- picks: exported executions that ended long before the cursor
WITH due AS MATERIALIZED (
  SELECT project_id, execution_id FROM trace_exports WHERE project_id = :project_id AND sent = 1 AND ended_at_us < :before_us
  LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM trace_exports WHERE (project_id, execution_id) IN (SELECT project_id, execution_id FROM due);
