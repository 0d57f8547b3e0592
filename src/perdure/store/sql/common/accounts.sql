-- Users, their sessions, their places in projects, invitations.

-- text: project
id, name, created_at_us, COALESCE(updated_at_us, created_at_us) AS updated_at_us, NULLIF(description, '') AS description

-- name: insert_user
-- holds: user_email=email
-- No row if the e-mail has signed up already.
INSERT INTO users ({columns User}, password_hash, created_at_us, updated_at_us)
VALUES ({values User}, :password_hash, :now_us, :now_us)
ON CONFLICT (email) DO NOTHING RETURNING id;

-- name: find_user
-- holds: user_email=email
SELECT {columns User}, password_hash FROM users WHERE email = :email;

-- name: read_user
SELECT {columns User}, password_hash FROM users WHERE id = :user_id;

-- name: update_user
-- holds: user=user_id
UPDATE users SET first_name = COALESCE(:first_name, first_name), last_name = COALESCE(:last_name, last_name),
  display_name = COALESCE(:display_name, display_name), updated_at_us = :now_us
WHERE id = :user_id RETURNING {columns User};

-- name: update_password
-- holds: user=user_id
UPDATE users SET password_hash = :password_hash, updated_at_us = :now_us WHERE id = :user_id RETURNING id;

-- name: insert_session
-- holds: user=user_id
INSERT INTO user_sessions (token_hash, user_id, created_at_us, expires_at_us)
VALUES (:token_hash, :user_id, :now_us, :expires_at_us) RETURNING user_id;

-- name: read_session
-- The session's user and end, and that user's role in a project.
SELECT s.user_id, s.expires_at_us, m.role FROM user_sessions s
LEFT JOIN members m ON m.project_id = :project_id AND m.user_id = s.user_id
WHERE s.token_hash = :token_hash;

-- name: delete_session
-- holds: session=token_hash
DELETE FROM user_sessions WHERE token_hash = :token_hash RETURNING user_id;

-- name: delete_other_sessions
-- holds: user=user_id
DELETE FROM user_sessions WHERE user_id = :user_id AND token_hash <> :token_hash RETURNING token_hash;

-- name: delete_old_sessions
-- holds: user=user_id
-- Expired sessions, and those that expire first beyond the user's limit.
DELETE FROM user_sessions WHERE user_id = :user_id AND (expires_at_us <= :now_us OR token_hash IN (
  SELECT token_hash FROM user_sessions WHERE user_id = :user_id
  ORDER BY expires_at_us DESC, token_hash LIMIT {-1|ALL} OFFSET :kept)) RETURNING token_hash;

-- name: create_project
-- holds: project=id
INSERT INTO projects ({columns Project}) VALUES ({values Project});

-- name: read_project
SELECT {= project} FROM projects WHERE id = :project_id;

-- name: update_project
-- holds: project=project_id
UPDATE projects SET name = COALESCE(:name, name), description = COALESCE(:description, description),
  updated_at_us = :now_us
WHERE id = :project_id RETURNING {= project};

-- name: projects_of_user
-- holds: user=user_id
SELECT {= project} FROM projects WHERE id IN (SELECT project_id FROM members WHERE user_id = :user_id)
ORDER BY created_at_us DESC, id DESC;

-- name: lock_project
-- holds: project=project_id
-- Locked for changes of members (the last admin stays, and their number is limited) or of webhooks.
SELECT id FROM projects WHERE id = :project_id {FOR UPDATE};

-- name: member_roles
-- holds: project=project_id
SELECT user_id, role FROM members WHERE project_id = :project_id;

-- name: list_members
SELECT m.id, m.user_id, m.role, m.created_at_us, m.updated_at_us, u.email, NULLIF(u.first_name, '') AS first_name,
  NULLIF(u.last_name, '') AS last_name, NULLIF(u.display_name, '') AS display_name
FROM members m JOIN users u ON u.id = m.user_id
WHERE m.project_id = :project_id AND (:user_id{::TEXT} IS NULL OR m.user_id = :user_id) ORDER BY m.created_at_us, m.id;

-- name: insert_member
-- holds: project=project_id
INSERT INTO members (project_id, user_id, id, role, created_at_us, updated_at_us)
VALUES (:project_id, :user_id, :id, :role, :now_us, :now_us) ON CONFLICT (project_id, user_id) DO NOTHING RETURNING id;

-- name: update_member
-- holds: project=project_id
UPDATE members SET role = :role, updated_at_us = :now_us WHERE project_id = :project_id AND user_id = :user_id
RETURNING id;

-- name: delete_member
-- holds: project=project_id
DELETE FROM members WHERE project_id = :project_id AND user_id = :user_id RETURNING id;

-- name: count_invitations
SELECT COUNT(*) FROM invitations WHERE project_id = :project_id AND expires_at_us > :now_us;

-- name: list_invitations
SELECT {columns Invitation} FROM invitations
WHERE project_id = :project_id AND expires_at_us > :now_us ORDER BY email;

-- name: upsert_invitation
-- holds: project=project_id
INSERT INTO invitations (project_id, token_hash, {columns Invitation})
VALUES (:project_id, :token_hash, {values Invitation})
ON CONFLICT (project_id, email) DO UPDATE SET role = excluded.role, token_hash = excluded.token_hash,
  expires_at_us = excluded.expires_at_us RETURNING email;

-- name: read_invitation
SELECT i.project_id, p.name AS project, i.email, i.role, i.expires_at_us
FROM invitations i JOIN projects p ON p.id = i.project_id WHERE i.token_hash = :token_hash;

-- name: take_invitation
-- holds: project=project_id
DELETE FROM invitations WHERE project_id = :project_id AND email = :email AND token_hash = :token_hash RETURNING email;

-- name: delete_invitation
-- holds: project=project_id
DELETE FROM invitations WHERE project_id = :project_id AND email = :email RETURNING email;

-- name: delete_old_invitations
-- holds: project=project_id
DELETE FROM invitations WHERE project_id = :project_id AND expires_at_us <= :now_us RETURNING email;
