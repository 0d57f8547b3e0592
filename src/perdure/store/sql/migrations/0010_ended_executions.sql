-- compatible: yes
-- What has ended, by when: the order of traces, and what an exporter goes through.
CREATE INDEX executions_by_end ON executions (project_id, completed_at_us, id) WHERE completed_at_us IS NOT NULL;
-- What failed, which operators ask for, among very many that did not.
CREATE INDEX executions_failed ON executions (project_id, id) WHERE phase = 'failed';
