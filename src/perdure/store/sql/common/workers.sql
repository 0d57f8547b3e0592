-- Workers.

-- name: upsert_worker
-- holds: worker=id
INSERT INTO workers (id, project_id, deployment_id, python, protocol, capacity, embedded, lease_until_us, registered_at_us,
  host, pid)
VALUES (:id, :project_id, :deployment_id, :python, :protocol, :capacity, :embedded, :lease_until_us, :now_us, :host, :pid)
ON CONFLICT (id) DO UPDATE SET lease_until_us = excluded.lease_until_us, python = excluded.python, host = excluded.host,
  pid = excluded.pid, protocol = excluded.protocol, deployment_id = excluded.deployment_id, registered_at_us = excluded.registered_at_us
WHERE workers.project_id = excluded.project_id RETURNING id;

-- name: read_worker
SELECT project_id, deployment_id, python, protocol, last_claim_id, embedded FROM workers WHERE id = :id;

-- name: lock_worker
-- holds: worker=id
-- As read_worker, locked for handing out work: the registration cannot end meanwhile, and its beats do not wait.
SELECT project_id, deployment_id, python, protocol, last_claim_id, embedded FROM workers WHERE id = :id {FOR KEY SHARE};

-- name: list_workers
-- Without push workers that have not reported online; they get no work.
SELECT id, deployment_id, embedded = 1 AS embedded, lease_until_us FROM workers
WHERE project_id = :project_id AND NOT EXISTS (SELECT 1 FROM push_workers p WHERE p.id = workers.id AND p.state = 'registered')
ORDER BY registered_at_us, id;

-- text: listed_worker
w.id, w.deployment_id, CASE w.embedded WHEN 0 THEN 'native' WHEN 1 THEN 'embedded' ELSE 'push' END AS kind,
  CASE WHEN w.embedded = 1 THEN 'online' WHEN w.lease_until_us <= :now_us THEN 'lapsed' ELSE COALESCE(p.state, 'online') END
    AS state,
  w.capacity, (SELECT COUNT(*) FROM executions e WHERE e.assigned_to_worker = w.id AND e.phase IN ('running', 'cancelling'))
    AS running,
  w.registered_at_us,
  w.lease_until_us - CASE w.embedded WHEN 0 THEN :lease_us{::BIGINT} WHEN 2 THEN :push_lease_us END AS last_beat_at_us,
  CASE WHEN w.embedded <> 1 THEN w.lease_until_us END AS lease_until_us,
  CASE WHEN w.embedded <> 2 THEN w.python END AS python, p.url, w.host, w.pid

-- name: list_all_workers
-- For operators: by id, with what each holds.
SELECT {= listed_worker} FROM workers w LEFT JOIN push_workers p ON p.id = w.id
WHERE w.project_id = :project_id AND w.id > :after ORDER BY w.id LIMIT :limit;

-- name: read_listed_worker
SELECT {= listed_worker} FROM workers w LEFT JOIN push_workers p ON p.id = w.id WHERE w.project_id = :project_id AND w.id = :id;

-- name: serving_workers
SELECT {= listed_worker}, w.python AS suits_python, w.protocol FROM workers w LEFT JOIN push_workers p ON p.id = w.id
WHERE w.project_id = :project_id AND w.deployment_id = :deployment_id ORDER BY w.id LIMIT :limit;

-- name: beat_worker
-- holds: worker=id
UPDATE workers SET lease_until_us = {MAX|GREATEST}(lease_until_us, :lease_until_us), in_flight = :in_flight
WHERE id = :id AND project_id = :project_id AND lease_until_us > :now_us
RETURNING id;

-- name: beat_unlocked
-- picks: a worker, unless it is locked
UPDATE workers SET lease_until_us = {MAX|GREATEST}(lease_until_us, :lease_until_us), in_flight = :in_flight
WHERE id {IN (|= ANY(ARRAY(}
  SELECT id FROM workers WHERE id = :id AND project_id = :project_id AND lease_until_us > :now_us {FOR NO KEY UPDATE SKIP LOCKED}{)|))}
RETURNING id;

-- name: renew_lease
-- holds: worker=id
UPDATE workers SET lease_until_us = {MAX|GREATEST}(lease_until_us, :lease_until_us) WHERE id = :id;

-- name: read_lease
SELECT lease_until_us, in_flight FROM workers WHERE id = :id AND project_id = :project_id;

-- name: worker_in_flight
SELECT in_flight FROM workers WHERE id = :worker_id AND in_flight IS NOT NULL;

-- name: begun_steps
-- The newest of some steps' tries with an outcome.
SELECT key, started_at_us FROM journal WHERE execution_id = :execution_id AND seq > :after AND kind IN ('step', 'step_failed')
  AND key {IN (SELECT value FROM json_each(:keys))|= ANY(ARRAY(SELECT json_array_elements_text(:keys::JSON)))};

-- name: cut_lease
-- holds: worker=id
UPDATE workers SET lease_until_us = :lease_until_us WHERE id = :id AND embedded = 0 AND lease_until_us > :lease_until_us
  AND (:granted_us{::BIGINT} IS NULL OR lease_until_us = :granted_us)
RETURNING id;

-- name: note_claim
-- holds: worker=id
-- late: workers
UPDATE workers SET last_claim_id = :claim_id WHERE id = :id;

-- name: grant_leases
-- picks: workers; a server that was away gives each one full lease before it takes anything back
UPDATE workers SET lease_until_us = :lease_until_us WHERE id {IN (|= ANY(ARRAY(}
  SELECT id FROM workers WHERE embedded <> 1 AND lease_until_us < :lease_until_us {FOR NO KEY UPDATE SKIP LOCKED}{)|))} RETURNING id;

-- name: count_shorter_leases
SELECT COUNT(*) FROM workers WHERE embedded <> 1 AND lease_until_us < :lease_until_us;

-- name: any_lease
-- A worker whose lease can run out.
SELECT id FROM workers WHERE embedded <> 1 LIMIT 1;

-- name: any_lease_until
SELECT id FROM workers WHERE embedded = 0 AND lease_until_us <= :until_us LIMIT 1;

-- name: limit_leases
-- picks: workers with leases from before the clock went back
UPDATE workers SET lease_until_us = :lease_until_us WHERE id {IN (|= ANY(ARRAY(}
  SELECT id FROM workers WHERE embedded = 0 AND lease_until_us > :lease_until_us {FOR NO KEY UPDATE SKIP LOCKED}{)|))} RETURNING id;

-- name: count_longer_leases
SELECT COUNT(*) FROM workers WHERE embedded = 0 AND lease_until_us > :lease_until_us;

-- name: expired_workers
-- The clock is read after the rows are seen. If it agrees, no server has shortened a lease by a later time of the
-- clock.
SELECT id, lease_until_us FROM workers WHERE embedded = 0 AND lease_until_us <= :now_us
  AND (:by_database = 0 OR {1 = 1|ABS(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 - :now_us) < 2000000}) ORDER BY lease_until_us, id LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: embedded_workers
SELECT id, project_id FROM workers WHERE embedded = 1 ORDER BY id {FOR UPDATE};

-- name: delete_worker
-- holds: worker=id
DELETE FROM workers WHERE id = :id RETURNING project_id, deployment_id;

-- name: note_ended
-- holds: worker=id
INSERT INTO ended_workers (id, ended_at_us, project_id, deployment_id, lost)
VALUES (:id, :now_us, :project_id, :deployment_id, :lost) ON CONFLICT (id) DO NOTHING;

-- name: read_ended
SELECT ended_at_us FROM ended_workers WHERE id = :id;

-- name: prune_ended
-- picks: registrations that ended long ago, so that no message of theirs is in transit
DELETE FROM ended_workers WHERE id {IN (|= ANY(ARRAY(}
  SELECT id FROM ended_workers WHERE ended_at_us < :before_us LIMIT :limit {FOR UPDATE SKIP LOCKED}{)|))} RETURNING id;

-- name: note_loss
-- holds: execution=execution_id
INSERT INTO counted_losses (worker_id, project_id, execution_id, lost_at_us)
VALUES (:worker_id, :project_id, :execution_id, :now_us) ON CONFLICT (worker_id, project_id, execution_id) DO NOTHING;

-- name: forgive_losses
-- picks: unlocked open executions that count as lost by a worker
-- The loss becomes a delivery in vain.
WITH rows AS MATERIALIZED (
  SELECT e.project_id, e.id FROM counted_losses c JOIN executions e ON e.project_id = c.project_id AND e.id = c.execution_id
  WHERE c.worker_id = :worker_id AND c.project_id = :project_id AND e.losses > 0 AND e.completed_at_us IS NULL {FOR UPDATE OF e SKIP LOCKED})
UPDATE executions SET losses = losses - 1, undelivered = undelivered + 1
WHERE (project_id, id) IN (SELECT project_id, id FROM rows) RETURNING id;

-- name: drop_losses
-- picks: the counted losses of a worker
DELETE FROM counted_losses WHERE worker_id = :worker_id AND project_id = :project_id;

-- name: prune_losses
-- picks: losses that were counted long ago
DELETE FROM counted_losses WHERE (worker_id, project_id, execution_id) IN (
  SELECT worker_id, project_id, execution_id FROM counted_losses WHERE lost_at_us < :before_us LIMIT :limit
  {FOR UPDATE SKIP LOCKED}) RETURNING execution_id;

-- name: newer_registration
SELECT w.id FROM workers me JOIN workers w ON w.project_id = me.project_id AND w.deployment_id = me.deployment_id
WHERE me.id = :worker_id AND w.registered_at_us > me.registered_at_us LIMIT 1;

-- name: held_by
SELECT project_id, id, attempt, next_seq - 1 FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') ORDER BY id;

-- name: held_by_all
SELECT assigned_to_worker, id, attempt, next_seq - 1 FROM executions
WHERE phase IN ('running', 'cancelling')
  AND assigned_to_worker {IN (SELECT value FROM json_each(:workers))|= ANY(ARRAY(SELECT json_array_elements_text(:workers::JSON)))}
ORDER BY assigned_to_worker, id;

-- name: orphaned
-- Executions whose registration is gone: nothing else would take them back.
SELECT e.project_id, e.id, e.attempt, e.assigned_to_worker FROM executions e
WHERE e.phase IN ('running', 'cancelling') AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = e.assigned_to_worker)
ORDER BY e.id LIMIT :limit;
