-- Definitions of agents and tools.

-- name: put_definition
-- holds: deployment=deployment_id
INSERT INTO definitions (project_id, kind, deployment_id, id, value, created_at_us, updated_at_us)
VALUES (:project_id, :kind, :deployment_id, :id, :value, :now_us, :now_us)
ON CONFLICT (project_id, kind, deployment_id, id) DO UPDATE SET value = excluded.value, updated_at_us = excluded.updated_at_us;

-- name: read_definition
SELECT deployment_id, value, created_at_us, updated_at_us FROM definitions
WHERE project_id = :project_id AND kind = :kind AND deployment_id = :deployment_id AND id = :id;

-- text: listed
FROM definitions f {CROSS |}JOIN deployments d ON d.project_id = f.project_id AND d.id = f.deployment_id AND d.retired_at_us IS NULL
WHERE f.project_id = :project_id AND f.kind = :kind AND f.id >= :after_id AND (f.id > :after_id
  OR f.created_at_us < :before_us OR f.created_at_us = :before_us AND f.deployment_id > :after)
ORDER BY f.id, f.created_at_us DESC, f.deployment_id LIMIT :limit OFFSET :offset

-- name: definition_sizes
-- CROSS keeps SQLite to the index by name.
SELECT OCTET_LENGTH(f.value) AS size, f.id, f.created_at_us, f.deployment_id {= listed};

-- name: list_definitions
SELECT f.deployment_id, f.value, f.created_at_us, f.updated_at_us {= listed};
