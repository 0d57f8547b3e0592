-- compatible: yes
-- What a deployment serves, and who serves it: native workers, whose registry arrives whole, or push workers, to which the
-- server brings the work.
ALTER TABLE deployments ADD COLUMN push INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN retired_at_us INTEGER;

ALTER TABLE workflows ADD COLUMN type TEXT NOT NULL DEFAULT 'workflow';
ALTER TABLE workflows ADD COLUMN trigger_on_event INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflows ADD COLUMN scheduled INTEGER NOT NULL DEFAULT 0;
-- 0: as old as its deployment; a release that knows nothing of it leaves it out.
ALTER TABLE workflows ADD COLUMN created_at_us INTEGER NOT NULL DEFAULT 0;

-- What workers say of their agents and tools, as JSON; the server only hands it out again.
CREATE TABLE definitions (
  project_id {text} NOT NULL,
  kind {text} NOT NULL,
  deployment_id {text} NOT NULL,
  id {text} NOT NULL,
  value {blob} NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, kind, deployment_id, id),
  CONSTRAINT definition_kind_is_known CHECK (kind = 'agent' OR kind = 'tool')
) {table};

CREATE TABLE conversations (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  last_id INTEGER NOT NULL,
  PRIMARY KEY (project_id, id)
) {table};

CREATE TABLE conversation_messages (
  project_id {text} NOT NULL,
  conversation_id {text} NOT NULL,
  agent_id {text} NOT NULL,
  id INTEGER NOT NULL,
  role TEXT NOT NULL,
  content {blob} NOT NULL,
  agent_run_id TEXT,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, conversation_id, agent_id, id)
) {table};

CREATE TABLE slack_apps (
  api_app_id {text} PRIMARY KEY,
  project_id {text} NOT NULL,
  bound_at_us INTEGER NOT NULL
) {table};
CREATE INDEX slack_apps_of ON slack_apps (project_id, api_app_id);
