-- Names that begin with a text. Where executions hold them, one seek leads to each name.

-- name: workflows_beginning
SELECT id FROM workflows WHERE project_id = :project_id AND type = :type AND id BETWEEN :first AND :last
GROUP BY id ORDER BY id LIMIT :limit;

-- name: queues_beginning
SELECT name FROM queues WHERE project_id = :project_id AND name BETWEEN :first AND :last ORDER BY name LIMIT :limit;

-- name: used_queues_beginning
WITH RECURSIVE rows (name) AS (
  SELECT (SELECT queue_name FROM executions WHERE project_id = :project_id AND queue_name <> workflow_id
    AND queue_name BETWEEN :first AND :last ORDER BY queue_name LIMIT 1)
  UNION ALL
  SELECT (SELECT e.queue_name FROM executions e WHERE e.project_id = :project_id AND e.queue_name <> e.workflow_id
    AND e.queue_name > rows.name AND e.queue_name <= :last ORDER BY e.queue_name LIMIT 1) FROM rows WHERE rows.name IS NOT NULL)
SELECT name FROM rows WHERE name IS NOT NULL LIMIT :limit;

-- name: sessions_beginning
WITH RECURSIVE rows (name) AS (
  SELECT (SELECT session_id FROM executions WHERE project_id = :project_id AND session_id BETWEEN :first AND :last
    ORDER BY session_id LIMIT 1)
  UNION ALL
  SELECT (SELECT e.session_id FROM executions e WHERE e.project_id = :project_id
    AND e.session_id > rows.name AND e.session_id <= :last ORDER BY e.session_id LIMIT 1) FROM rows WHERE rows.name IS NOT NULL)
SELECT name FROM rows WHERE name IS NOT NULL LIMIT :limit;

-- name: topics_beginning
SELECT t.topic FROM topics t WHERE t.project_id = :project_id AND t.topic BETWEEN :first AND :last AND {= is_own_topic}
ORDER BY t.topic LIMIT :limit;

-- name: deployments_beginning
SELECT id FROM deployments WHERE project_id = :project_id AND id BETWEEN :first AND :last AND retired_at_us IS NULL
ORDER BY id LIMIT :limit;
