-- What executions spent on models.

-- text: spending
id, workflow_id, parent_execution_id, kept_rows

-- name: spending_execution
SELECT {= spending} FROM executions WHERE project_id = :project_id AND id = :id;

-- name: spending_below
SELECT {= spending} FROM executions WHERE project_id = :project_id
  AND parent_execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
ORDER BY id LIMIT :limit;

-- name: model_calls
-- The answers of models in one journal, behind what a fork has copied.
SELECT execution_id, seq, at_us, kind, key, name, CASE WHEN {= value_size} <= :bytes_max THEN {= value} END AS value, started_at_us
FROM journal j WHERE execution_id = :execution_id AND seq > :after AND kind = 'step' AND ok = 1
  AND name IN ('model.request', 'conversation.summarize')
ORDER BY seq LIMIT :limit;

-- text: began_since
AND id >= :floor_id AND created_at_us >= :from_us ORDER BY id DESC LIMIT :limit

-- name: ended_of_agent
SELECT id, workflow_id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND phase = :phase
  AND completed_at_us IS NOT NULL {= began_since};

-- name: open_of_agent
SELECT id, workflow_id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id
  AND completed_at_us IS NULL {= began_since};

-- name: calls_of_agents
-- As model_calls, of several executions.
SELECT j.execution_id, j.seq, j.at_us, j.kind, j.name, CASE WHEN {= value_size} <= :bytes_max THEN {= value} END AS value,
  j.started_at_us
FROM executions e JOIN journal j ON j.execution_id = e.id
WHERE e.project_id = :project_id
  AND e.id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND j.seq > COALESCE(e.kept_rows, 0) AND j.kind = 'step' AND j.ok = 1
  AND j.name IN ('model.request', 'conversation.summarize')
LIMIT :limit;
