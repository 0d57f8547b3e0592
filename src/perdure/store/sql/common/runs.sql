-- Root executions by the type of their workflow.

-- text: payload
CASE WHEN OCTET_LENGTH(e.payload) > 0 THEN e.payload
    ELSE (SELECT x.payload FROM execution_extras x WHERE x.execution_id = e.id) END

-- text: payload_size
CASE WHEN OCTET_LENGTH(e.payload) > 0 THEN OCTET_LENGTH(e.payload)
    ELSE (SELECT OCTET_LENGTH(x.payload) FROM execution_extras x WHERE x.execution_id = e.id) END

-- text: runs
FROM executions e
LEFT JOIN workflows w ON w.project_id = e.project_id AND w.deployment_id = e.deployment_id AND w.id = e.workflow_id
WHERE e.project_id = :project_id AND e.id < :before AND e.id >= :floor_id AND e.parent_execution_id IS NULL
  AND (:workflow_id{::TEXT} IS NULL OR e.workflow_id = :workflow_id) AND COALESCE(w.type, 'workflow') = :type
  AND (:created_after_us{::BIGINT} IS NULL OR e.created_at_us >= :created_after_us)
  AND (:created_before_us{::BIGINT} IS NULL OR e.created_at_us <= :created_before_us)

-- name: list_runs
-- Root executions of one type, newest first. Those of a workflow that nobody registered are of type `workflow`.
SELECT e.id, e.root_execution_id, e.workflow_id, COALESCE(e.session_id, e.id), e.created_at_us, e.phase, e.completed_at_us,
  {= payload}, e.result, e.error
{= runs}
ORDER BY e.id DESC LIMIT :limit OFFSET :offset;

-- name: run_sizes
-- How large they are that list_runs would answer with.
SELECT {= payload_size} + COALESCE(OCTET_LENGTH(e.result), 0)
{= runs}
ORDER BY e.id DESC LIMIT :limit OFFSET :offset;
