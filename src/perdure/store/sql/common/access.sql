-- Projects, keys, deployments.

-- name: insert_project
-- holds: project=id
INSERT INTO projects (id, name, created_at_us) VALUES (:id, :name, :now_us) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: list_projects
SELECT id, name, created_at_us, current_deployment_id FROM projects ORDER BY created_at_us, id;

-- name: insert_key
-- holds: api_key=id
INSERT INTO api_keys (id, project_id, name, role, secret_hash, last_four_digits, development, created_at_us)
VALUES (:id, :project_id, :name, :role, :secret_hash, :last_four, :development, :now_us) RETURNING id;

-- name: read_key
SELECT project_id, role, secret_hash, development FROM api_keys WHERE id = :id;

-- name: list_keys
SELECT id, name, role, last_four_digits, development, created_at_us FROM api_keys
WHERE project_id = :project_id ORDER BY created_at_us, id;

-- name: delete_key
-- holds: api_key=id
DELETE FROM api_keys WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: upsert_deployment
-- holds: deployment=id
INSERT INTO deployments (project_id, id, created_at_us, registered_at_us) VALUES (:project_id, :id, :now_us, :now_us)
ON CONFLICT (project_id, id) DO UPDATE SET registered_at_us = excluded.registered_at_us
RETURNING created_at_us;

-- name: use_deployment
-- holds: project=project_id
UPDATE projects SET current_deployment_id = :deployment_id WHERE id = :project_id RETURNING id;

-- name: delete_workflows
-- holds: deployment=deployment_id
DELETE FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id;

-- name: insert_workflow
-- holds: deployment=deployment_id
INSERT INTO workflows (project_id, deployment_id, id, queue_name, output_schema_name, run_timeout_seconds, wake_on_cancel)
VALUES (:project_id, :deployment_id, :id, :queue_name, :output_schema_name, :run_timeout_seconds, :wake_on_cancel);

-- name: list_workflows
SELECT id, deployment_id, queue_name, output_schema_name, run_timeout_seconds FROM workflows
WHERE project_id = :project_id ORDER BY id, deployment_id;

-- name: start_target
-- Where a new execution goes: its deployment (asked for, or the current one) and what that says of the workflow.
SELECT d.id, w.id, COALESCE(:queue_name, w.queue_name, :workflow_id), w.output_schema_name, w.run_timeout_seconds,
  w.wake_on_cancel, q.name, q.concurrency_limit, q.total_limit
FROM projects p
LEFT JOIN deployments d ON d.project_id = p.id AND d.id = COALESCE(:deployment_id, p.current_deployment_id)
LEFT JOIN workflows w ON w.project_id = p.id AND w.deployment_id = d.id AND w.id = :workflow_id
LEFT JOIN queues q ON q.project_id = p.id AND q.name = COALESCE(:queue_name, w.queue_name, :workflow_id)
WHERE p.id = :project_id;
