-- Projects and keys.

-- name: insert_project
-- holds: project=id
INSERT INTO projects (id, name, created_at_us) VALUES (:id, :name, :now_us) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: list_projects
SELECT id FROM projects ORDER BY created_at_us, id;

-- name: insert_key
-- holds: api_key=id
INSERT INTO api_keys (project_id, secret_hash, {columns ApiKey}) VALUES (:project_id, :secret_hash, {values ApiKey});

-- name: read_key
SELECT project_id, role, secret_hash, development, last_used_at_us FROM api_keys WHERE id = :id;

-- name: note_key_use
-- holds: api_key=id
UPDATE api_keys SET last_used_at_us = :now_us WHERE id = :id AND (last_used_at_us IS NULL OR last_used_at_us < :now_us)
RETURNING id;

-- name: list_keys
SELECT {columns ApiKey} FROM api_keys WHERE project_id = :project_id ORDER BY created_at_us DESC, id DESC;

-- name: delete_key
-- holds: api_key=id
DELETE FROM api_keys WHERE project_id = :project_id AND id = :id RETURNING id;
