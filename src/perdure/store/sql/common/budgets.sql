-- Budgets and their reservations.

-- text: budget
execution_id, usd_micros_max AS limits_usd_micros, tokens_max AS limits_tokens, calls_max AS limits_calls,
  seconds_max AS limits_seconds, on_exceed AS limits_on_exceed, usd_micros_spent AS spent_usd_micros,
  tokens_spent AS spent_tokens, calls_spent AS spent_calls, usd_micros_reserved AS reserved_usd_micros,
  tokens_reserved AS reserved_tokens, calls_reserved AS reserved_calls, opened_at_us, paused_at_us, raises, asking_id,
  key, CASE WHEN key IS NOT NULL THEN root_id END AS shared_id

-- name: insert_budget
-- holds: budget=execution_id
-- No row: the execution has a budget already.
INSERT INTO budgets (execution_id, project_id, root_id, on_exceed, usd_micros_max, tokens_max, calls_max, seconds_max,
  opened_at_us)
VALUES (:execution_id, :project_id, :root_id, :on_exceed, :usd_micros, :tokens, :calls, :seconds, :now_us)
ON CONFLICT (execution_id) DO NOTHING RETURNING execution_id;

-- name: read_spender
-- holds: execution=id
SELECT phase, attempt, assigned_to_worker, COALESCE(root_execution_id, id) AS root_id FROM executions
WHERE project_id = :project_id AND id = :id;

-- name: budgets_above
-- The budgets that an execution spends from: its ancestors' from the root down (by id), then its own. Mostly none.
SELECT b.execution_id FROM (
  WITH RECURSIVE rows (id, parent_id) AS (
    SELECT id, parent_execution_id FROM executions WHERE project_id = :project_id AND id = :id
    UNION ALL SELECT e.id, e.parent_execution_id FROM rows JOIN executions e ON e.project_id = :project_id AND e.id = rows.parent_id)
  SELECT id FROM rows) AS rows
CROSS JOIN budgets b WHERE b.execution_id = rows.id ORDER BY b.execution_id;

-- name: any_budget
-- Whether an execution in a tree has a budget.
SELECT 1 FROM budgets WHERE root_id = :root_id LIMIT 1;

-- name: lock_budget
-- holds: budget=id
SELECT {= budget} FROM budgets WHERE project_id = :project_id AND execution_id = :id {FOR UPDATE};

-- name: read_budget
SELECT {= budget} FROM budgets WHERE project_id = :project_id AND execution_id = :id;

-- name: any_reservation
-- holds: reservation=id
SELECT 1 FROM reservations WHERE execution_id = :execution_id AND id = :id LIMIT 1;

-- name: insert_reservation
-- holds: reservation=id
INSERT INTO reservations (execution_id, id, budget_id, project_id, attempt, usd_micros, tokens, calls, reserved_at_us)
VALUES (:execution_id, :id, :budget_id, :project_id, :attempt, :usd_micros, :tokens, :calls, :now_us);

-- name: reserve_budget
-- holds: budget=id
UPDATE budgets SET usd_micros_reserved = usd_micros_reserved + :usd_micros, tokens_reserved = tokens_reserved + :tokens,
  calls_reserved = calls_reserved + :calls, used_at_us = CASE WHEN used_at_us IS NOT NULL THEN :day_us{::BIGINT} END
WHERE project_id = :project_id AND execution_id = :id RETURNING execution_id;

-- name: live_reservations
-- Refundable amounts: reserved by attempts that still hold their executions.
SELECT COALESCE(SUM(r.usd_micros), 0){::BIGINT} AS usd_micros, COALESCE(SUM(r.tokens), 0){::BIGINT} AS tokens,
  COALESCE(SUM(r.calls), 0){::BIGINT} AS calls, 0 AS seconds
FROM reservations r
JOIN executions e ON e.project_id = r.project_id AND e.id = r.execution_id
WHERE r.budget_id = :id AND r.settled = 0 AND e.attempt = r.attempt AND e.phase IN ('running', 'cancelling');

-- name: pause_budget
-- holds: budget=id
UPDATE budgets SET paused_at_us = COALESCE(paused_at_us, :now_us), asking_id = :asking_id
WHERE project_id = :project_id AND execution_id = :id RETURNING execution_id;

-- name: settle_reservation
-- holds: reservation=id
-- No row: it was settled before, or does not exist.
UPDATE reservations SET settled = 1 WHERE project_id = :project_id AND execution_id = :execution_id AND id = :id AND settled = 0
RETURNING budget_id AS id, usd_micros AS usd_micros_back, tokens AS tokens_back, calls AS calls_back;

-- name: note_settled
-- holds: reservation=id
UPDATE reservations SET usd_micros = :usd_micros, tokens = :tokens, calls = :calls
WHERE execution_id = :execution_id AND id = :id AND settled = 1;

-- name: settle_budget
-- holds: budget=id
UPDATE budgets SET usd_micros_spent = usd_micros_spent + :usd_micros, tokens_spent = tokens_spent + :tokens,
  calls_spent = calls_spent + :calls, usd_micros_reserved = usd_micros_reserved - :usd_micros_back,
  tokens_reserved = tokens_reserved - :tokens_back, calls_reserved = calls_reserved - :calls_back
WHERE project_id = :project_id AND execution_id = :id RETURNING execution_id;

-- name: raise_budget
-- holds: budget=id
-- The paused time does not count, except of a day.
UPDATE budgets SET usd_micros_max = usd_micros_max + :usd_micros, tokens_max = tokens_max + :tokens,
  calls_max = calls_max + :calls, seconds_max = seconds_max + :seconds, on_exceed = COALESCE(:on_exceed, on_exceed),
  opened_at_us = opened_at_us + CASE WHEN key IS NULL THEN COALESCE({MAX|GREATEST}(:now_us - paused_at_us, 0), 0) ELSE 0 END,
  paused_at_us = NULL,
  asking_id = NULL, raises = :number
WHERE project_id = :project_id AND execution_id = :id RETURNING {= budget};

-- name: unasked_budgets
-- Paused budgets that no execution waits for and asks about. A join would let PostgreSQL read all waits.
SELECT project_id, execution_id FROM budgets b WHERE paused_at_us IS NOT NULL AND (SELECT 1 FROM waits w
  WHERE w.project_id = b.project_id AND w.topic = 'budget/' || b.execution_id AND w.execution_id = b.asking_id
    AND w.state = 'open' LIMIT 1) IS NULL
ORDER BY root_id, execution_id LIMIT :limit;

-- name: delete_budget
-- holds: execution=id
DELETE FROM budgets WHERE execution_id = :id;

-- name: delete_reservations
-- holds: execution=id
DELETE FROM reservations WHERE execution_id = :id;

-- name: list_balances
-- With :opened_at_us, those of one day.
SELECT {= budget} FROM budgets WHERE root_id = :shared_id AND key IS NOT NULL AND key >= COALESCE(:after{::TEXT}, '')
  AND (:after{::TEXT} IS NULL OR key > :after) AND {= of_day}
ORDER BY root_id, key LIMIT :limit;

-- name: read_balance
SELECT {= budget} FROM budgets WHERE root_id = :shared_id AND key IS NOT NULL AND key = :key AND {= of_day}
ORDER BY root_id, key LIMIT :limit;

-- text: of_day
(:opened_at_us{::BIGINT} IS NULL OR opened_at_us = :opened_at_us)
