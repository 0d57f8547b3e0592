-- compatible: yes
-- Links to questions. Links of earlier releases have no row; they end by their time, or with the secret.
CREATE TABLE approval_links (
  id {text} PRIMARY KEY,
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  step_key TEXT NOT NULL,
  question TEXT NOT NULL,
  name TEXT NOT NULL,
  made_by TEXT NOT NULL,
  -- A link ends with the key or the membership of its maker. Both are null for a program without a stored key.
  key_id TEXT,
  user_id TEXT,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL,
  used_at_us INTEGER
) {table};
CREATE INDEX approval_links_by_project ON approval_links (project_id, created_at_us, id);
CREATE INDEX approval_links_by_execution ON approval_links (execution_id);

-- Signs links until `previous_until_us`.
ALTER TABLE signing_secrets ADD COLUMN previous_links TEXT;
