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
SELECT execution_id, seq, at_us, key, name, CASE WHEN OCTET_LENGTH(value) <= :bytes_max THEN value END AS value, started_at_us
FROM journal WHERE execution_id = :execution_id AND seq > :after AND kind = 'step' AND ok = 1
  AND name IN ('model.request', 'conversation.summarize')
ORDER BY seq LIMIT :limit;
