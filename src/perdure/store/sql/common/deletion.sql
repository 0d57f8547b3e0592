-- Deleting executions.

-- name: lock_old
-- picks: unlocked executions of a list
-- Excludes executions with an open descendant: a cancel reaches it through them, and it spends from their budgets. Also
-- excludes those whose end their batch has yet to report, because it is stored nowhere else.
SELECT e.id FROM executions e WHERE e.project_id = :project_id
  AND e.id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND NOT EXISTS (
    WITH RECURSIVE rows (id, ended_at_us) AS (
      SELECT c.id, c.completed_at_us FROM executions c WHERE c.project_id = :project_id AND c.parent_execution_id = e.id
      UNION ALL SELECT c.id, c.completed_at_us FROM rows
      JOIN executions c ON c.project_id = :project_id AND c.parent_execution_id = rows.id)
    SELECT 1 FROM rows WHERE ended_at_us IS NULL)
  AND NOT EXISTS (SELECT 1 FROM waits w WHERE w.execution_id = e.parent_execution_id AND w.key = e.step_key
    AND w.batch_id = e.batch_id AND w.state = 'open') {FOR UPDATE SKIP LOCKED};

-- name: delete_execution
-- holds: execution=id
DELETE FROM executions WHERE project_id = :project_id AND id = :id AND phase IN ('completed', 'failed', 'cancelled')
RETURNING completed_at_us, {= end_group};

-- name: delete_large_payload
-- holds: execution=id
DELETE FROM large_payloads WHERE execution_id = :id;

-- name: delete_journal
-- holds: execution=id
DELETE FROM journal WHERE execution_id = :id;

-- name: delete_waits
-- holds: execution=id
DELETE FROM waits WHERE execution_id = :id;

-- name: delete_acts
-- holds: execution=id
DELETE FROM acts WHERE execution_id = :id;

-- name: delete_pending_calls
-- holds: execution=id
DELETE FROM pending_calls WHERE execution_id = :id;

-- name: delete_logs
-- holds: execution=id
DELETE FROM logs WHERE execution_id = :id;

-- name: delete_tags
-- holds: execution=id
DELETE FROM execution_tags WHERE execution_id = :id;

-- name: delete_terms
-- holds: execution=id
DELETE FROM search_terms WHERE execution_id = :id;

-- name: oldest_executions
-- A window of retention's walk. It looks at all rows, so a store without old rows is not walked to its end.
SELECT project_id, id, workflow_id, phase, completed_at_us, created_at_us, next_seq + COALESCE((SELECT t.spans FROM traces t
  WHERE t.project_id = executions.project_id AND t.trace_id = REPLACE(executions.id, '-', '')), 0)
  + {MIN|LEAST}(COALESCE((SELECT s.n FROM stream_items s WHERE s.execution_id = executions.id
    ORDER BY s.n DESC LIMIT 1), 0), 10000) FROM executions
WHERE (project_id, id) > (:project_id, :after) ORDER BY project_id, id LIMIT :limit;

-- name: final_of_user
SELECT id, COALESCE(session_id, id) FROM executions WHERE project_id = :project_id AND user_id = :user_id
  AND phase IN ('completed', 'failed', 'cancelled') ORDER BY id LIMIT :limit;

-- name: open_of_user
SELECT COUNT(*) FROM executions WHERE project_id = :project_id AND user_id = :user_id
  AND phase NOT IN ('completed', 'failed', 'cancelled');

-- name: final_of_session
-- The session's executions, and the one that it is named after: two seeks, because OR would scan.
SELECT id FROM (
  SELECT id, phase FROM executions WHERE project_id = :project_id AND session_id = :session_id
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND id = :session_id
    AND (session_id IS NULL OR session_id <> :session_id)) AS of_session
WHERE phase IN ('completed', 'failed', 'cancelled') ORDER BY id LIMIT :limit;

-- name: open_of_session
SELECT COUNT(*) FROM (
  SELECT phase FROM executions WHERE project_id = :project_id AND session_id = :session_id
  UNION ALL SELECT phase FROM executions WHERE project_id = :project_id AND id = :session_id
    AND (session_id IS NULL OR session_id <> :session_id)) AS of_session
WHERE phase NOT IN ('completed', 'failed', 'cancelled');

-- name: prune_events
-- picks: expired events
WITH due AS MATERIALIZED (
  SELECT project_id, topic, seq FROM events WHERE created_at_us < :before_us LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM events WHERE (project_id, topic, seq) IN (SELECT project_id, topic, seq FROM due)
RETURNING project_id, topic;

-- name: prune_event_fields
-- picks: unlocked rows of the index of which no event is left
WITH due AS MATERIALIZED (
  SELECT project_id, topic, part, seq FROM event_fields WHERE project_id = :project_id AND topic = :topic
    AND part IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
    AND seq < COALESCE((SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic ORDER BY seq LIMIT 1), 1 + (
      SELECT last_seq FROM topics WHERE project_id = :project_id AND topic = :topic)) {FOR UPDATE SKIP LOCKED})
DELETE FROM event_fields WHERE (project_id, topic, part, seq) IN (SELECT project_id, topic, part, seq FROM due);
