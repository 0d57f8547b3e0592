-- compatible: yes
-- People who sign in, and their place in projects. E-mails are in lower case; of passwords and tokens only hashes are kept.
CREATE TABLE users (
  id {text} PRIMARY KEY,
  email TEXT NOT NULL,
  first_name TEXT,
  last_name TEXT,
  display_name TEXT,
  password_hash TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL
) {table};
CREATE UNIQUE INDEX users_by_email ON users (email);

CREATE TABLE user_sessions (
  token_hash {text} PRIMARY KEY,
  user_id TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL
) {table};
CREATE INDEX user_sessions_by_user ON user_sessions (user_id, expires_at_us);

CREATE TABLE members (
  project_id {text} NOT NULL,
  user_id {text} NOT NULL,
  id TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, user_id),
  CONSTRAINT role_is_known CHECK (role = 'read' OR role = 'write' OR role = 'admin')
) {table};
CREATE INDEX members_by_user ON members (user_id);

-- For e-mails that nobody has signed up with yet: whoever does so with the token becomes a member.
CREATE TABLE invitations (
  project_id {text} NOT NULL,
  email {text} NOT NULL,
  role TEXT NOT NULL,
  token_hash TEXT NOT NULL,
  expires_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, email)
) {table};
CREATE INDEX invitations_by_email ON invitations (email);

ALTER TABLE projects ADD COLUMN description TEXT;
ALTER TABLE projects ADD COLUMN updated_at_us INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_at_us INTEGER;
CREATE INDEX api_keys_by_project ON api_keys (project_id);
