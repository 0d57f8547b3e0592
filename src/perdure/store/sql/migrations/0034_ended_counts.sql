-- compatible: yes
-- How many executions ended, by slices of time. A server of the release before deletes executions that are not counted yet.
CREATE TABLE ended_counts (
  project_id {text} NOT NULL,
  -- The length of the slice. Each end is in one slice of every length.
  step_us INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  workflow_id {text} NOT NULL,
  -- Empty: none.
  deployment_id {text} NOT NULL,
  -- Empty: the queue that is named after the workflow.
  queue_name {text} NOT NULL,
  phase {text} NOT NULL,
  -- The class of its duration. -1: none.
  took INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (project_id, step_us, at_us, workflow_id, deployment_id, queue_name, phase, took)
) {table};

-- One row. `ended_counts` has the ends from `folded_from_us` on and before `folded_to_us`.
CREATE TABLE ended_folds (
  id INTEGER PRIMARY KEY,
  -- 0: the whole past is counted.
  folded_from_us INTEGER NOT NULL,
  folded_to_us INTEGER NOT NULL,
  -- Ends before this time have been looked for a second time.
  settled_to_us INTEGER NOT NULL,
  -- How often executions were deleted that were not counted yet.
  deletions INTEGER NOT NULL
) {table};
