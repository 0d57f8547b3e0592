-- Root executions by the type of their workflow.

-- text: runs
FROM executions
LEFT JOIN workflows w ON w.project_id = executions.project_id AND w.deployment_id = executions.deployment_id
  AND w.id = executions.workflow_id
WHERE executions.project_id = :project_id AND executions.id < :before AND executions.id >= :floor_id
  AND executions.parent_execution_id IS NULL
  AND (:workflow_id{::TEXT} IS NULL OR executions.workflow_id = :workflow_id) AND COALESCE(w.type, 'workflow') = :type
  AND (:created_after_us{::BIGINT} IS NULL OR executions.created_at_us >= :created_after_us)
  AND (:created_before_us{::BIGINT} IS NULL OR executions.created_at_us <= :created_before_us)
ORDER BY executions.id DESC LIMIT :limit OFFSET :offset

-- name: list_runs
-- Root executions of one type, newest first. Unregistered workflows have the type `workflow`.
SELECT executions.id, executions.root_execution_id, executions.workflow_id,
  COALESCE(executions.session_id, executions.id) AS session_id, executions.created_at_us, executions.phase AS status,
  executions.completed_at_us, {= payload} AS payload, {= result} AS result, executions.error
{= runs};

-- name: run_sizes
-- Sizes of the runs that list_runs would answer with.
SELECT executions.id, {= payload_size} + COALESCE({= result_size}, 0) AS size
{= runs};
