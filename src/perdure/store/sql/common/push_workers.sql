-- Push workers: registrations that the server calls.

-- name: insert_push_worker
-- holds: worker=id
INSERT INTO push_workers (id, project_id, url, state, refused, check_at_us)
VALUES (:id, :project_id, :url, 'registered', 0, :check_at_us);

-- name: push_worker_at
-- The registration of a URL.
SELECT id FROM push_workers WHERE project_id = :project_id AND url = :url {FOR UPDATE};

-- name: push_workers_of
-- The registrations for a deployment, including lapsed ones.
SELECT p.id FROM workers w JOIN push_workers p ON p.id = w.id
WHERE w.project_id = :project_id AND w.deployment_id = :deployment_id ORDER BY p.id {FOR UPDATE OF p};

-- name: delete_push_worker
-- holds: worker=id
DELETE FROM push_workers WHERE id = :id RETURNING id;

-- name: push_online
-- holds: worker=id
UPDATE push_workers SET state = 'online', online_at_us = :now_us, refused = 0, check_at_us = :check_at_us
WHERE id = :id AND project_id = :project_id RETURNING id;

-- name: push_beat
-- holds: worker=id
-- A lapsed worker that is heard of is online again. A worker that has not reported online may only ask for work. Its
-- own heartbeat (`own`) also sets it online, because the call for that may have failed.
UPDATE push_workers SET state = CASE WHEN state = 'lapsed' OR :own = 1 THEN 'online' ELSE state END, refused = 0,
  check_at_us = CASE WHEN state = 'online' THEN check_at_us ELSE :check_at_us END
WHERE id = :id AND project_id = :project_id RETURNING id;

-- name: renew_push_lease
-- holds: worker=id
UPDATE workers SET lease_until_us = {MAX|GREATEST}(lease_until_us, :lease_until_us) WHERE id = :id AND embedded = 2
RETURNING id;

-- name: push_refused
-- holds: worker=id
-- Counts a refused call, except right after the worker reported online. Answers the time of the next look.
UPDATE push_workers SET refused = CASE WHEN online_at_us > :young_us THEN 0 ELSE refused + 1 END, check_at_us = :check_at_us
WHERE id = :id AND state = 'online' RETURNING refused;

-- name: hurry_check
-- holds: worker=id
UPDATE push_workers SET check_at_us = :check_at_us WHERE id = :id AND state = 'online' AND check_at_us > :check_at_us
RETURNING id;

-- name: lapse_push_worker
-- holds: worker=id
UPDATE push_workers SET state = 'lapsed' WHERE id = :id AND (state = 'online' OR state = 'registered') RETURNING project_id;

-- name: end_push_lease
-- holds: worker=id
UPDATE workers SET lease_until_us = :now_us WHERE id = :id AND lease_until_us > :now_us RETURNING id;

-- name: has_lapsed
SELECT 1 FROM push_workers WHERE id = :id AND state = 'lapsed';

-- name: lapsed_long_ago
SELECT p.id FROM push_workers p JOIN workers w ON w.id = p.id
WHERE p.state = 'lapsed' AND w.lease_until_us < :before_us ORDER BY p.id LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: expired_push_workers
-- The clock is read after the rows are seen, as in expired_workers.
SELECT p.id, w.lease_until_us FROM push_workers p JOIN workers w ON w.id = p.id
WHERE (p.state = 'online' OR p.state = 'registered') AND w.lease_until_us <= :now_us
  AND (:by_database = 0 OR {1 = 1|ABS(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 - :now_us) < 2000000})
ORDER BY p.id LIMIT :limit {FOR UPDATE OF p SKIP LOCKED};

-- name: take_push_checks
-- picks: online push workers that are due for a check, each by one server
UPDATE push_workers SET check_at_us = :next_us WHERE state = 'online' AND check_at_us <= :now_us AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM push_workers WHERE state = 'online' AND check_at_us <= :now_us ORDER BY check_at_us LIMIT :limit
  {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING id, project_id, url;

-- name: live_push_workers
-- Push workers with a lease.
SELECT p.state, w.lease_until_us, p.check_at_us, p.id, p.project_id, w.deployment_id, p.url, w.capacity
FROM push_workers p JOIN workers w ON w.id = p.id WHERE p.state = 'online' OR p.state = 'registered' ORDER BY p.id;

-- name: active_push_workers
SELECT p.id FROM push_workers p JOIN workers w ON w.id = p.id
WHERE p.project_id = :project_id AND p.state = 'online' AND w.lease_until_us > :now_us ORDER BY w.registered_at_us, p.id;

-- name: active_native_workers
SELECT id FROM workers WHERE project_id = :project_id AND (embedded = 1 OR (embedded = 0 AND lease_until_us > :now_us))
ORDER BY registered_at_us, id;

-- name: lock_push_worker
-- holds: worker=id
-- Locked to count the worker's free room. No row: another server is counting at this moment.
SELECT p.project_id, w.deployment_id, w.capacity, p.state, w.lease_until_us
FROM push_workers p JOIN workers w ON w.id = p.id WHERE p.id = :id {FOR UPDATE OF p SKIP LOCKED};

-- name: count_held_by
SELECT COUNT(*) FROM executions WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling');

-- name: untold_of_push_workers
-- Executions held by a push worker that lack a delivery's acknowledgement, or a notified cancel. (`acked`: 1 the worker
-- has it, 2 it was also told of the cancel.)
SELECT e.project_id, e.id AS execution_id, e.attempt, p.id AS worker_id, e.phase = 'cancelling' AS cancelling
FROM push_workers p JOIN executions e ON e.assigned_to_worker = p.id AND e.phase IN ('running', 'cancelling')
WHERE (e.acked = 0 AND e.moved_at_us < :before_us) OR (e.phase = 'cancelling' AND e.acked < 2)
ORDER BY e.id LIMIT :limit;
