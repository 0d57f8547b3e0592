-- The use of space (`perdure db size`); each query reads whole tables.

-- name: size_executions
SELECT project_id, workflow_id, COUNT(*),
  CAST(SUM(CASE WHEN phase IN ('completed', 'failed', 'cancelled') THEN 0 ELSE 1 END) AS BIGINT),
  CAST(SUM({= payload_size} + COALESCE(OCTET_LENGTH(result), 0) + COALESCE(OCTET_LENGTH(error), 0)
    + COALESCE(OCTET_LENGTH(tags), 0) + COALESCE(OCTET_LENGTH(progress), 0)) AS BIGINT)
FROM executions GROUP BY project_id, workflow_id;

-- name: size_journal
SELECT e.project_id, e.workflow_id, COUNT(*), CAST(SUM(OCTET_LENGTH(j.value)) AS BIGINT)
FROM executions e JOIN journal j ON j.execution_id = e.id GROUP BY e.project_id, e.workflow_id;

-- name: size_logs
SELECT e.project_id, e.workflow_id, COUNT(*), CAST(SUM(OCTET_LENGTH(l.text)) AS BIGINT)
FROM executions e JOIN logs l ON l.execution_id = e.id GROUP BY e.project_id, e.workflow_id;

-- name: size_streams
SELECT e.project_id, e.workflow_id, COUNT(*), CAST(SUM(OCTET_LENGTH(s.data)) AS BIGINT)
FROM executions e JOIN stream_items s ON s.execution_id = e.id GROUP BY e.project_id, e.workflow_id;
