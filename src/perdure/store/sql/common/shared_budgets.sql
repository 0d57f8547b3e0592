-- Shared budgets and their balances.

-- text: shared_budget
id, name, per, period, on_exceed, usd_micros_max AS usd_micros, tokens_max AS tokens, calls_max AS calls

-- name: begin_shared_budget
-- alone: calls reserve by the shared budgets that they have read
-- Precedes a change: no call is under way that has read the limits before, and a refused one has noted its pause.
SELECT 1;

-- name: list_shared_budgets
SELECT {= shared_budget} FROM shared_budgets WHERE project_id = :project_id ORDER BY name;

-- name: read_shared_budget
SELECT {= shared_budget} FROM shared_budgets WHERE project_id = :project_id AND name = :name;

-- name: put_shared_budget
-- holds: shared_budget=name
INSERT INTO shared_budgets (project_id, name, id, per, period, on_exceed, usd_micros_max, tokens_max, calls_max)
VALUES (:project_id, :name, :id, :per, :period, :on_exceed, :usd_micros, :tokens, :calls)
ON CONFLICT (project_id, name) DO UPDATE SET on_exceed = excluded.on_exceed, usd_micros_max = excluded.usd_micros_max,
  tokens_max = excluded.tokens_max, calls_max = excluded.calls_max
RETURNING {= shared_budget};

-- name: delete_shared_budget
-- holds: shared_budget=name
DELETE FROM shared_budgets WHERE project_id = :project_id AND name = :name RETURNING name;

-- name: read_payer
-- The root of a tree: its session, user and tags say which balances its calls are charged to.
SELECT COALESCE(session_id, id) AS session_id, user_id, tags FROM executions WHERE project_id = :project_id AND id = :id;

-- name: insert_balance
-- holds: budget=id
INSERT INTO budgets (execution_id, project_id, root_id, on_exceed, usd_micros_max, tokens_max, calls_max, opened_at_us,
  key, used_at_us)
VALUES (:id, :project_id, :shared_id, 'ask', 0, 0, 0, :opened_at_us, :key, :used_at_us)
ON CONFLICT (execution_id) DO NOTHING RETURNING execution_id;

-- name: paused_balances
SELECT execution_id FROM budgets WHERE root_id = :shared_id AND key IS NOT NULL AND paused_at_us IS NOT NULL
  AND execution_id > :after
ORDER BY root_id, execution_id LIMIT :limit;

-- name: delete_balances
-- picks: unlocked balances of a shared budget
WITH due AS MATERIALIZED (
  SELECT execution_id FROM budgets WHERE root_id = :shared_id AND key IS NOT NULL LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM budgets WHERE execution_id IN (SELECT execution_id FROM due) RETURNING execution_id;

-- name: delete_balances_of
-- picks: the balances of a session or a user, in lock order
WITH due AS MATERIALIZED (
  SELECT b.execution_id FROM budgets b JOIN shared_budgets s ON s.id = b.root_id
  WHERE s.project_id = :project_id AND s.per = :per AND b.key IS NOT NULL AND b.key = :key ORDER BY b.execution_id {FOR UPDATE OF b})
DELETE FROM budgets WHERE execution_id IN (SELECT execution_id FROM due) RETURNING execution_id;

-- name: prune_balances
-- picks: balances whose last day is over, except of sessions that wait and of calls under way
WITH due AS MATERIALIZED (
  SELECT execution_id FROM budgets b WHERE used_at_us IS NOT NULL AND used_at_us < :day_before_us
    AND (paused_at_us IS NULL OR EXISTS (
      SELECT 1 FROM shared_budgets s WHERE s.project_id = b.project_id AND s.id = b.root_id AND s.period IS NOT NULL))
    AND NOT EXISTS (SELECT 1 FROM reservations r WHERE r.budget_id = b.execution_id AND r.settled = 0)
  LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM budgets WHERE execution_id IN (SELECT execution_id FROM due) RETURNING execution_id;
