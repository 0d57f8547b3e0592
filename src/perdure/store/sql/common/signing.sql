-- Secrets that sign outgoing calls.

-- name: read_signing
SELECT secret, made_at_us, previous, previous_until_us, links, previous_links FROM signing_secrets WHERE project_id = :project_id;

-- name: insert_signing
-- holds: project=project_id
INSERT INTO signing_secrets (project_id, secret, links, made_at_us) VALUES (:project_id, :secret, :links, :now_us)
ON CONFLICT (project_id) DO NOTHING;

-- name: rotate_signing
-- holds: project=project_id
UPDATE signing_secrets SET secret = :secret, links = :links, made_at_us = :now_us,
  previous = CASE WHEN :until_us{::BIGINT} > :now_us THEN secret ELSE NULL END,
  previous_links = CASE WHEN :until_us > :now_us THEN links ELSE NULL END,
  previous_until_us = CASE WHEN :until_us > :now_us THEN :until_us ELSE NULL END
WHERE project_id = :project_id RETURNING made_at_us;
