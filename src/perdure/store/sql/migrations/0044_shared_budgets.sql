-- compatible: yes
-- Limits that many executions spend from. NULL: no limit of that kind.
CREATE TABLE shared_budgets (
  project_id {text} NOT NULL,
  name {text} NOT NULL,
  id TEXT NOT NULL,
  -- What has a balance of its own: 'project', 'session', 'user', or 'tag:NAME' for each value of a tag.
  per TEXT NOT NULL,
  -- 'day': a balance counts one day in UTC.
  period TEXT,
  on_exceed TEXT NOT NULL,
  usd_micros_max INTEGER,
  tokens_max INTEGER,
  calls_max INTEGER,
  PRIMARY KEY (project_id, name),
  CONSTRAINT on_exceed_is_known CHECK (on_exceed = 'ask' OR on_exceed = 'finish' OR on_exceed = 'fail')
) {table};

-- A balance is a row of `budgets`: `root_id` is the shared budget, the limits are what raises have added to it. The key
-- is the session, the user or the tag's value, '' for a project; NULL for the budget of an execution.
ALTER TABLE budgets ADD COLUMN key {text};
-- The day of a balance's last call, if retention may delete it; NULL: it stays as long as its shared budget.
ALTER TABLE budgets ADD COLUMN used_at_us INTEGER;
CREATE INDEX budgets_by_key ON budgets (root_id, key) WHERE key IS NOT NULL;
CREATE INDEX budgets_paused ON budgets (root_id, execution_id) WHERE key IS NOT NULL AND paused_at_us IS NOT NULL;
CREATE INDEX budgets_by_use ON budgets (used_at_us) WHERE used_at_us IS NOT NULL;
