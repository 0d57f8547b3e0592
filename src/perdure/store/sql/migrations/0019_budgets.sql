-- compatible: yes
-- What trees of executions may spend, and what calls under way have set aside of it.
CREATE TABLE budgets (
  -- Where it is held: it is shared by that execution and all below it.
  execution_id {text} PRIMARY KEY,
  project_id TEXT NOT NULL,
  root_id TEXT NOT NULL,
  on_exceed TEXT NOT NULL,
  -- The limits; NULL: none. Money in millionths of a US dollar.
  usd_micros_max INTEGER,
  tokens_max INTEGER,
  calls_max INTEGER,
  seconds_max INTEGER,
  usd_micros_spent INTEGER NOT NULL DEFAULT 0,
  tokens_spent INTEGER NOT NULL DEFAULT 0,
  calls_spent INTEGER NOT NULL DEFAULT 0,
  -- The sum of its open reservations.
  usd_micros_reserved INTEGER NOT NULL DEFAULT 0,
  tokens_reserved INTEGER NOT NULL DEFAULT 0,
  calls_reserved INTEGER NOT NULL DEFAULT 0,
  opened_at_us INTEGER NOT NULL,
  paused_at_us INTEGER,
  raises INTEGER NOT NULL DEFAULT 0,
  asking_id TEXT,
  CONSTRAINT on_exceed_is_known CHECK (on_exceed = 'ask' OR on_exceed = 'finish' OR on_exceed = 'fail'),
  CONSTRAINT nothing_below_zero CHECK (usd_micros_spent >= 0 AND tokens_spent >= 0 AND calls_spent >= 0
    AND usd_micros_reserved >= 0 AND tokens_reserved >= 0 AND calls_reserved >= 0)
) {table};
CREATE INDEX budgets_by_root ON budgets (root_id);

-- One row for each call and each budget that it is charged to.
CREATE TABLE reservations (
  execution_id {text} NOT NULL,
  id {text} NOT NULL,
  budget_id {text} NOT NULL,
  project_id TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  -- What was reserved; of a settled one what it took.
  usd_micros INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  calls INTEGER NOT NULL,
  settled INTEGER NOT NULL DEFAULT 0,
  reserved_at_us INTEGER NOT NULL,
  PRIMARY KEY (execution_id, id, budget_id)
) {table};
CREATE INDEX reservations_open ON reservations (budget_id, execution_id) WHERE settled = 0;
