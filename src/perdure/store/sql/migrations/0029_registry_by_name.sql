-- compatible: yes
-- The lists of workflows, agents and tools go by name over all deployments.
CREATE INDEX workflows_by_name ON workflows (project_id, id, deployment_id);
CREATE INDEX definitions_by_name ON definitions (project_id, kind, id, deployment_id);
