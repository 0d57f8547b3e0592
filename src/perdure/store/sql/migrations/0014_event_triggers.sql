-- compatible: yes
-- Event triggers belong to a project's workflow and topic, not to a deployment: the current one runs what they start.
CREATE TABLE event_triggers (
  project_id {text} NOT NULL,
  id {text} NOT NULL,
  workflow_id {text} NOT NULL,
  topic {text} NOT NULL,
  batch_size INTEGER NOT NULL,
  batch_timeout_seconds INTEGER,
  queue_name TEXT,
  -- 1 while code declares it: a registration without it deletes it.
  declared INTEGER NOT NULL,
  -- Every event up to this number was taken, or was there before the trigger.
  taken_seq INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL,
  updated_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, id),
  CONSTRAINT batch_has_a_size CHECK (batch_size > 0)
) {table};
CREATE UNIQUE INDEX event_triggers_by_topic ON event_triggers (project_id, topic, workflow_id);
