-- compatible: yes
-- Who hears of ends: URLs of a project, and URLs of single executions.
CREATE TABLE webhooks (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  url TEXT NOT NULL,
  host TEXT NOT NULL,
  -- The workflow whose ends are told; NULL: all.
  workflow_id TEXT,
  description TEXT,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id)
) {table};

CREATE TABLE execution_webhooks (
  execution_id {text} PRIMARY KEY,
  url TEXT NOT NULL,
  host TEXT NOT NULL
) {table};

-- How many of them a project has: an end looks at this number, and goes on if it is 0.
ALTER TABLE projects ADD COLUMN webhooks INTEGER NOT NULL DEFAULT 0;

-- What is to be told of an end, or was. Written in the transaction of the end.
CREATE TABLE deliveries (
  execution_id {text} NOT NULL,
  -- Empty for the URL that came with the execution.
  webhook_id {text} NOT NULL,
  project_id TEXT NOT NULL,
  url TEXT NOT NULL,
  host TEXT NOT NULL,
  -- pending · delivered · failed: given up
  state TEXT NOT NULL,
  tries INTEGER NOT NULL,
  -- When it is tried next; while it is being tried, when somebody else may.
  next_at_us INTEGER,
  created_at_us INTEGER NOT NULL,
  tried_at_us INTEGER,
  -- What came of the last try: the status, and the beginning of the answer or why there is none.
  status INTEGER,
  answer TEXT,
  PRIMARY KEY (execution_id, webhook_id),
  CONSTRAINT delivery_state_is_known CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed'),
  CONSTRAINT due_while_pending CHECK ((state = 'pending') = (next_at_us IS NOT NULL))
) {table};
CREATE INDEX deliveries_due ON deliveries (next_at_us) WHERE state = 'pending';
CREATE INDEX deliveries_by_project ON deliveries (project_id, created_at_us, execution_id, webhook_id);
