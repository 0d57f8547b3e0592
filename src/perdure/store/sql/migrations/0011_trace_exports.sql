-- compatible: yes
-- Which executions' spans were sent to the operator's collector: claimed by the server that sends them, once each. What
-- ended long before the cursor is done and forgotten here.
CREATE TABLE trace_exports (
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  ended_at_us INTEGER NOT NULL,
  claimed_until_us INTEGER NOT NULL,
  sent INTEGER NOT NULL,
  PRIMARY KEY (project_id, execution_id)
) {table};
CREATE INDEX trace_exports_unsent ON trace_exports (project_id, claimed_until_us) WHERE sent = 0;
CREATE INDEX trace_exports_sent ON trace_exports (project_id, ended_at_us) WHERE sent = 1;

CREATE TABLE export_cursors (
  project_id {text} PRIMARY KEY,
  ended_at_us INTEGER NOT NULL
) {table};
