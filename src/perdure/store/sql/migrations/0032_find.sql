-- compatible: no
-- Every server must write the terms by which executions are found.

-- Instead of an index by workflow: an open execution is in one index, an ended one in the other. So a list by workflow and
-- status does not walk through executions of another status.
DROP INDEX executions_by_workflow;
CREATE INDEX executions_open ON executions (project_id, workflow_id, id) WHERE completed_at_us IS NULL;
CREATE INDEX executions_ended ON executions (project_id, workflow_id, phase, id) WHERE completed_at_us IS NOT NULL;
CREATE INDEX executions_cancelled ON executions (project_id, id) WHERE phase = 'cancelled';
-- Most queues are named after their workflow, and its indexes serve them.
CREATE INDEX executions_by_queue ON executions (project_id, queue_name, id) WHERE queue_name <> workflow_id;
-- By key first, so that a key is found without its workflow, and by its beginning.
DROP INDEX executions_by_key;
CREATE UNIQUE INDEX executions_by_key ON executions (project_id, key, workflow_id) WHERE key IS NOT NULL AND retried_as IS NULL;
CREATE INDEX executions_by_retried_key ON executions (project_id, key, id) WHERE key IS NOT NULL AND retried_as IS NOT NULL;

-- What an execution is found by: later words of its key (k:), words of its error (e:), searchable fields (f:).
CREATE TABLE search_terms (
  project_id {text} NOT NULL,
  term {text} NOT NULL,
  execution_id {text} NOT NULL,
  PRIMARY KEY (project_id, term, execution_id)
) {table};
CREATE INDEX search_terms_of ON search_terms (execution_id);

-- The searchable fields of a workflow in a deployment, as a JSON list; NULL: none.
ALTER TABLE workflows ADD COLUMN searchable TEXT;
-- The searchable fields of a workflow in any deployment. Executions older than `place` have no terms of the field yet; NULL:
-- all have.
CREATE TABLE search_fields (
  project_id {text} NOT NULL,
  workflow_id {text} NOT NULL,
  field {text} NOT NULL,
  declared_at_us INTEGER NOT NULL,
  place TEXT,
  PRIMARY KEY (project_id, workflow_id, field)
) {table};
CREATE INDEX search_fields_to_fill ON search_fields (declared_at_us) WHERE place IS NOT NULL;

-- The primary key has to be the youngest index: see 0004.
{postgres_only}ALTER TABLE executions DROP CONSTRAINT executions_pkey;
{postgres_only}ALTER TABLE executions ADD PRIMARY KEY (project_id, id);
