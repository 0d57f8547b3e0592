-- Projects and keys.

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
SELECT project_id, role, secret_hash, development, last_used_at_us FROM api_keys WHERE id = :id;

-- name: note_key_use
-- holds: api_key=id
UPDATE api_keys SET last_used_at_us = :now_us WHERE id = :id AND (last_used_at_us IS NULL OR last_used_at_us < :now_us)
RETURNING id;

-- name: list_keys
SELECT id, name, role, last_four_digits, development, created_at_us, last_used_at_us FROM api_keys
WHERE project_id = :project_id ORDER BY created_at_us, id;

-- name: delete_key
-- holds: api_key=id
DELETE FROM api_keys WHERE project_id = :project_id AND id = :id RETURNING id;
