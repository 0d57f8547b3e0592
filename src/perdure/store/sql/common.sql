-- Queries that both databases run, by noun. In braces stands what one of them says differently: {a|b} is a on SQLite and b
-- on PostgreSQL, {b} is said on PostgreSQL only: row locks, which SQLite's one writer does not need, and casts. `rank` orders admission: what wakes before what is new, then by
-- priority; a fresh execution has 1000000 - priority, a woken one -priority.

-- name: read_meta
SELECT value FROM meta WHERE name = :name;

-- name: write_meta
-- holds: meta=name
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- ==== projects, keys, deployments ================================================================================

-- name: insert_project
-- holds: project=id
INSERT INTO projects (id, name, created_at_us) VALUES (:id, :name, :now_us) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: list_projects
SELECT id, name, created_at_us, current_deployment_id FROM projects ORDER BY created_at_us, id;

-- name: insert_key
-- holds: api_key=id
INSERT INTO api_keys (id, project_id, name, role, secret_hash, last_four_digits, development, created_at_us)
VALUES (:id, :project_id, :name, :role, :secret_hash, :last_four, :development, :now_us) RETURNING id;

-- name: read_key
SELECT project_id, role, secret_hash, development FROM api_keys WHERE id = :id;

-- name: list_keys
SELECT id, name, role, last_four_digits, development, created_at_us FROM api_keys
WHERE project_id = :project_id ORDER BY created_at_us, id;

-- name: delete_key
-- holds: api_key=id
DELETE FROM api_keys WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: upsert_deployment
-- holds: deployment=id
INSERT INTO deployments (project_id, id, created_at_us, registered_at_us) VALUES (:project_id, :id, :now_us, :now_us)
ON CONFLICT (project_id, id) DO UPDATE SET registered_at_us = excluded.registered_at_us
RETURNING created_at_us;

-- name: use_deployment
-- holds: project=project_id
UPDATE projects SET current_deployment_id = :deployment_id WHERE id = :project_id RETURNING id;

-- name: delete_workflows
-- holds: deployment=deployment_id
DELETE FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id;

-- name: insert_workflow
-- holds: deployment=deployment_id
INSERT INTO workflows (project_id, deployment_id, id, queue_name, output_schema_name, run_timeout_seconds, wake_on_cancel)
VALUES (:project_id, :deployment_id, :id, :queue_name, :output_schema_name, :run_timeout_seconds, :wake_on_cancel);

-- name: list_workflows
SELECT id, deployment_id, queue_name, output_schema_name, run_timeout_seconds FROM workflows
WHERE project_id = :project_id ORDER BY id, deployment_id;

-- name: start_target
-- Where a new execution goes: its deployment (asked for, or the current one) and what that says of the workflow.
SELECT d.id, w.id, COALESCE(:queue_name, w.queue_name, :workflow_id), w.output_schema_name, w.run_timeout_seconds,
  w.wake_on_cancel, q.name, q.concurrency_limit, q.total_limit
FROM projects p
LEFT JOIN deployments d ON d.project_id = p.id AND d.id = COALESCE(:deployment_id, p.current_deployment_id)
LEFT JOIN workflows w ON w.project_id = p.id AND w.deployment_id = d.id AND w.id = :workflow_id
LEFT JOIN queues q ON q.project_id = p.id AND q.name = COALESCE(:queue_name, w.queue_name, :workflow_id)
WHERE p.id = :project_id;

-- ==== queues =====================================================================================================

-- name: read_queue
SELECT concurrency_limit, total_limit FROM queues WHERE project_id = :project_id AND name = :name;

-- name: lock_queue
-- holds: queue=name
-- As read_queue, for whoever counts what a limit leaves room for. No row: another server is counting at this moment.
SELECT concurrency_limit, total_limit FROM queues WHERE project_id = :project_id AND name = :name {FOR UPDATE SKIP LOCKED};

-- name: insert_queue
-- holds: queue=name
INSERT INTO queues (project_id, name, concurrency_limit, total_limit)
VALUES (:project_id, :name, :concurrency_limit, :total_limit) ON CONFLICT (project_id, name) DO NOTHING RETURNING name;

-- name: upsert_queue
-- holds: queue=name
INSERT INTO queues (project_id, name, concurrency_limit, total_limit)
VALUES (:project_id, :name, :concurrency_limit, :total_limit)
ON CONFLICT (project_id, name) DO UPDATE
SET concurrency_limit = excluded.concurrency_limit, total_limit = excluded.total_limit RETURNING name;

-- name: list_queues
SELECT name, concurrency_limit, total_limit FROM queues WHERE project_id = :project_id ORDER BY name;

-- name: mark_limited
-- picks: executions of one queue; run when a queue gains or loses its limits, which is rare
UPDATE executions SET limited = :limited
WHERE project_id = :project_id AND queue_name = :name AND limited <> :limited AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND limited = 0 AND due_at_us IS NULL
  UNION SELECT id FROM executions WHERE project_id = :project_id AND phase = 'queued' AND limited = 1
    AND due_at_us IS NULL AND queue_name = :name
  UNION SELECT id FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION SELECT id FROM executions WHERE phase IN ('running', 'cancelling'){)|))}
RETURNING id;

-- ==== workers ====================================================================================================

-- name: upsert_worker
-- holds: worker=id
INSERT INTO workers (id, project_id, deployment_id, python, capacity, embedded, lease_until_us, registered_at_us)
VALUES (:id, :project_id, :deployment_id, :python, :capacity, :embedded, :lease_until_us, :now_us)
ON CONFLICT (id) DO UPDATE SET lease_until_us = excluded.lease_until_us, python = excluded.python,
  deployment_id = excluded.deployment_id, registered_at_us = excluded.registered_at_us
WHERE workers.project_id = excluded.project_id RETURNING id;

-- name: read_worker
SELECT project_id, deployment_id, python, last_claim_id, embedded FROM workers WHERE id = :id;

-- name: lock_worker
-- holds: worker=id
-- As read_worker, for what hands it work: the registration cannot end meanwhile, and its beats are not kept waiting.
SELECT project_id, deployment_id, python, last_claim_id, embedded FROM workers WHERE id = :id {FOR KEY SHARE};

-- name: list_workers
SELECT id, deployment_id, python, capacity, embedded, lease_until_us FROM workers
WHERE project_id = :project_id ORDER BY registered_at_us, id;

-- name: beat_worker
-- holds: worker=id
UPDATE workers SET lease_until_us = :lease_until_us WHERE id = :id AND project_id = :project_id AND lease_until_us > :now_us
RETURNING id;

-- name: cut_lease
-- holds: worker=id
UPDATE workers SET lease_until_us = :lease_until_us WHERE id = :id AND embedded = 0 AND lease_until_us > :lease_until_us
  AND (:granted_us{::BIGINT} IS NULL OR lease_until_us = :granted_us)
RETURNING id;

-- name: note_claim
-- holds: worker=id
UPDATE workers SET last_claim_id = :claim_id WHERE id = :id RETURNING id;

-- name: grant_leases
-- picks: workers; a server that was away gives everybody one full lease before it takes anything from them
UPDATE workers SET lease_until_us = :lease_until_us WHERE embedded = 0 AND lease_until_us < :lease_until_us RETURNING id;

-- name: limit_leases
-- picks: workers; whose leases were granted before the clock went back
UPDATE workers SET lease_until_us = :lease_until_us WHERE embedded = 0 AND lease_until_us > :lease_until_us RETURNING id;

-- name: expired_workers
-- The clock is read after the rows are seen: where it agrees, no server has shortened a lease by a later time of it.
SELECT id, project_id FROM workers WHERE embedded = 0 AND lease_until_us <= :now_us
  AND (:by_database = 0 OR {1 = 1|ABS(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 - :now_us) < 2000000}) ORDER BY lease_until_us, id LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: embedded_workers
SELECT id, project_id FROM workers WHERE embedded = 1 ORDER BY id {FOR UPDATE};

-- name: delete_worker
-- holds: worker=id
DELETE FROM workers WHERE id = :id RETURNING id;

-- name: note_ended
-- holds: worker=id
INSERT INTO ended_workers (id, ended_at_us) VALUES (:id, :now_us) ON CONFLICT (id) DO NOTHING;

-- name: read_ended
SELECT ended_at_us FROM ended_workers WHERE id = :id;

-- name: prune_ended
-- picks: registrations that ended long ago; no message of theirs is under way any more
DELETE FROM ended_workers WHERE id IN (SELECT id FROM ended_workers WHERE ended_at_us < :before_us LIMIT :limit) RETURNING id;

-- name: newer_registration
SELECT w.id FROM workers me JOIN workers w ON w.project_id = me.project_id AND w.deployment_id = me.deployment_id
WHERE me.id = :worker_id AND w.registered_at_us > me.registered_at_us LIMIT 1;

-- name: held_by
SELECT project_id, id, attempt, next_seq - 1 FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') ORDER BY id;

-- name: orphaned
-- Held by a registration that is gone: nothing else would ever take them back.
SELECT e.project_id, e.id, e.attempt, e.assigned_to_worker FROM executions e
WHERE e.phase IN ('running', 'cancelling') AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = e.assigned_to_worker)
ORDER BY e.id LIMIT :limit;

-- ==== executions: start ==========================================================================================

-- name: insert_execution
-- holds: execution=id
-- bulk: now_us run_timeout_seconds due_at_us priority rank ready_at_us limited wake_on_cancel attempt started_at_us next_seq; bytes payload tags
INSERT INTO executions (project_id, id, workflow_id, deployment_id, phase, payload, created_at_us, parent_execution_id,
  root_execution_id, step_key, queue_name, concurrency_key, batch_id, session_id, user_id, output_schema_name,
  run_timeout_seconds, key, tags, due_at_us, priority, rank, ready_at_us, limited, wake_on_cancel, moved_at_us,
  attempt, assigned_to_worker, started_at_us, claim_id, python, next_seq)
VALUES (:project_id, :id, :workflow_id, :deployment_id, :phase, :payload, :now_us, :parent_execution_id,
  :root_execution_id, :step_key, :queue_name, :concurrency_key, :batch_id, :session_id, :user_id, :output_schema_name,
  :run_timeout_seconds, :key, :tags, :due_at_us, :priority, :rank, :ready_at_us, :limited, :wake_on_cancel, :now_us,
  :attempt, :assigned_to_worker, :started_at_us, :claim_id, :python, :next_seq);

-- name: check_offer
-- holds: worker=worker_id
-- A worker that offered to take work at once: is it still what it was, and is nothing ahead of what is started now?
SELECT w.project_id, w.deployment_id, w.python, w.embedded, EXISTS (
  SELECT 1 FROM executions e WHERE e.project_id = w.project_id AND e.deployment_id = w.deployment_id
    AND e.phase = 'queued' AND e.limited = 0 AND e.due_at_us IS NULL), w.last_claim_id
FROM workers w WHERE w.id = :worker_id {FOR KEY SHARE OF w};

-- name: find_key
SELECT id, created_at_us FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND key = :key;

-- name: insert_tag
-- holds: execution=execution_id
INSERT INTO execution_tags (project_id, name, value, execution_id) VALUES (:project_id, :name, :value, :execution_id);

-- name: read_parent
-- holds: execution=id
SELECT COALESCE(root_execution_id, id), COALESCE(session_id, id), user_id, phase FROM executions
WHERE project_id = :project_id AND id = :id;

-- name: insert_idempotency
-- holds: idempotency=key
INSERT INTO idempotency (project_id, route, key, body_hash, answer, created_at_us)
VALUES (:project_id, :route, :key, :body_hash, :answer, :now_us);

-- name: read_idempotency
SELECT body_hash, answer FROM idempotency WHERE project_id = :project_id AND route = :route AND key = :key;

-- name: prune_idempotency
-- picks: idempotency rows past their time
DELETE FROM idempotency WHERE (project_id, route, key) IN (
  SELECT project_id, route, key FROM idempotency WHERE created_at_us < :before_us LIMIT :limit) RETURNING key;

-- ==== executions: claim ==========================================================================================

-- name: ready_sizes
-- How large the payloads are of those that claim_executions would pick.
SELECT OCTET_LENGTH(payload) FROM executions
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 0
  AND due_at_us IS NULL AND (python IS NULL OR python = :python)
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- name: ready_sizes_between
SELECT OCTET_LENGTH(payload) FROM executions
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 0
  AND due_at_us IS NULL AND (rank, ready_at_us) >= (:rank, :ready_from_us) AND rank < :rank_before
  AND (python IS NULL OR python = :python)
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- name: ready_sizes_limited
SELECT OCTET_LENGTH(payload) FROM executions
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 1
  AND due_at_us IS NULL AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
  AND (python IS NULL OR python = :python)
ORDER BY rank, ready_at_us, id LIMIT :capacity;

-- text: claimed
phase = CASE WHEN cancelled_by IS NULL THEN 'running' ELSE 'cancelling' END,
  attempt = attempt + 1, assigned_to_worker = :worker_id, started_at_us = COALESCE(started_at_us, :now_us), acked = 0,
  claim_id = :claim_id, report_number = 0, python = COALESCE(python, :python), next_seq = next_seq + 1,
  due_at_us = CASE WHEN cancelled_by IS NOT NULL THEN :now_us{::BIGINT} + :grace_us ELSE :now_us + run_timeout_seconds * 1000000 END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)

-- text: handed_out
id, workflow_id, attempt, payload, created_at_us, next_seq - 1, losses + undelivered, retry_count, phase, key,
  queue_name, concurrency_key, parent_execution_id, root_execution_id, deployment_id, session_id, user_id, tags,
  parked_worker, parked_seq, moved_at_us, rank, ready_at_us

-- name: claim_executions
-- picks: executions, the first ready ones of one deployment
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 0
    AND due_at_us IS NULL AND (python IS NULL OR python = :python)
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: claim_between
-- picks: executions, the first ready ones of one deployment from a place in their order on
-- For claims on a database that cannot clean up: what lies before that place need not be walked over.
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 0
    AND due_at_us IS NULL AND (rank, ready_at_us) >= (:rank, :ready_from_us) AND rank < :rank_before
    AND (python IS NULL OR python = :python)
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: claim_limited
-- picks: executions, the first ready ones of one deployment, queue and concurrency key
UPDATE executions SET {= claimed}
WHERE project_id = :project_id AND phase = 'queued' AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions
  WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 1
    AND due_at_us IS NULL AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
    AND (python IS NULL OR python = :python)
  ORDER BY rank, ready_at_us, id LIMIT :capacity {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING {= handed_out};

-- name: next_limited_group
-- The next (queue, key) with something ready, after the given one: a skip scan, one seek a group.
SELECT queue_name, COALESCE(concurrency_key, '') FROM executions
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase = 'queued' AND limited = 1 AND due_at_us IS NULL
  AND (queue_name, COALESCE(concurrency_key, '')) > (:queue_name, :concurrency_key)
ORDER BY queue_name, COALESCE(concurrency_key, '') LIMIT 1;

-- name: count_held_of_queue
SELECT COUNT(*) FROM executions
WHERE project_id = :project_id AND queue_name = :queue_name AND phase IN ('running', 'cancelling') AND limited = 1;

-- name: count_held_of_key
SELECT COUNT(*) FROM executions
WHERE project_id = :project_id AND queue_name = :queue_name AND COALESCE(concurrency_key, '') = :concurrency_key
  AND phase IN ('running', 'cancelling') AND limited = 1;

-- name: claimed_before
-- The batch of a claim that is asked for again because its reply was lost.
SELECT {= handed_out}
FROM executions
WHERE assigned_to_worker = :worker_id AND phase IN ('running', 'cancelling') AND claim_id = :claim_id AND acked = 0
ORDER BY id;

-- ==== executions: the worker's reports (all fenced by attempt, worker and report number) =========================

-- name: acknowledge
-- holds: execution=id
-- Lost deliveries are forgotten with the next outcome, not here: handed back and out again, it is acknowledged first again.
UPDATE executions SET acked = 1
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id
RETURNING next_seq, phase, moved_at_us;

-- name: advance
-- holds: execution=id
-- bulk: rows number outcomes now_us attempt; bytes progress
UPDATE executions SET next_seq = next_seq + :rows, acked = 1, report_number = :number,
  losses = CASE WHEN :outcomes > 0 THEN 0 ELSE losses END,
  undelivered = CASE WHEN :outcomes > 0 THEN 0 ELSE undelivered END, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING next_seq, phase, moved_at_us, workflow_id, deployment_id, created_at_us;

-- name: advance_next
-- holds: execution=id
-- answer: how many
-- bulk: number now_us attempt seq
-- As advance for the outcome of one step, if nobody else has written to the journal since the worker looked and the clock
-- has not gone back: its number and its time are known beforehand then.
UPDATE executions SET next_seq = next_seq + 1, acked = 1, report_number = :number, losses = 0, undelivered = 0,
  moved_at_us = :now_us
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number AND next_seq = :seq AND moved_at_us <= :now_us
{RETURNING id};

-- name: count_outcome
-- holds: execution=id
-- A seq for an outcome that a report finds out only while it is taken.
UPDATE executions SET next_seq = next_seq + 1, losses = 0, undelivered = 0
WHERE project_id = :project_id AND id = :id RETURNING next_seq;

-- name: complete
-- holds: execution=id
-- bulk: now_us rows number attempt; bytes result progress
UPDATE executions SET phase = 'completed', result = :result, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: fail
-- holds: execution=id
UPDATE executions SET phase = 'failed', error = :error, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: confirm_cancel
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'cancelling' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: suspend
-- holds: execution=id
-- bulk: due_at_us parked_seq now_us attempt
UPDATE executions SET phase = 'waiting', due_at_us = :due_at_us, timer_key = :timer_key, next_seq = next_seq + 1,
  parked_worker = :parked_worker, parked_seq = :parked_seq, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt
  AND assigned_to_worker = :worker_id
RETURNING next_seq, moved_at_us, limited, deployment_id;

-- name: requeue
-- holds: execution=id
UPDATE executions SET phase = 'queued', due_at_us = :due_at_us, retry_count = retry_count + :retries,
  rank = -priority, ready_at_us = COALESCE(:due_at_us, :now_us{::BIGINT}), next_seq = next_seq + 1,
  limited = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END,
  parked_worker = NULL, parked_seq = NULL, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING next_seq, moved_at_us, deployment_id;

-- name: block
-- holds: execution=id
UPDATE executions SET phase = 'blocked', error = :error, due_at_us = NULL, next_seq = next_seq + 1,
  parked_worker = NULL, parked_seq = NULL, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING next_seq, moved_at_us, limited, deployment_id;

-- ==== executions: what others do to them =========================================================================

-- name: read_state
SELECT phase, attempt, assigned_to_worker, report_number, next_seq, queue_name, workflow_id, parent_execution_id, step_key,
  deployment_id, wake_on_cancel, cancelled_by, limited, acked, losses, undelivered, created_at_us
FROM executions WHERE project_id = :project_id AND id = :id;

-- name: lock_state
-- holds: execution=id
-- As read_state, for what decides by it: the row stays as it is until the verb has ended.
SELECT phase, attempt, assigned_to_worker, report_number, next_seq, queue_name, workflow_id, parent_execution_id, step_key,
  deployment_id, wake_on_cancel, cancelled_by, limited, acked, losses, undelivered, created_at_us
FROM executions WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: deliver_outcome
-- holds: execution=id
-- An outcome reaches an execution: a waiting one goes back to its queue, a held one hears of it from its next report.
UPDATE executions SET next_seq = next_seq + 1, losses = 0, undelivered = 0,
  rank = CASE WHEN phase = 'waiting' THEN -priority ELSE rank END,
  ready_at_us = CASE WHEN phase = 'waiting' THEN :now_us ELSE ready_at_us END,
  due_at_us = CASE WHEN phase = 'waiting' THEN NULL ELSE due_at_us END,
  limited = CASE WHEN phase = 'waiting' THEN CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END ELSE limited END,
  phase = CASE WHEN phase = 'waiting' THEN 'queued' ELSE phase END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('queued', 'running', 'waiting', 'cancelling', 'blocked')
RETURNING next_seq - 1, phase, assigned_to_worker, deployment_id, moved_at_us, attempt;

-- name: wake_timers
-- picks: executions whose timer is due
-- `phase || ''` is the phase that no index knows: before there are statistics PostgreSQL takes the small index of what
-- waits for a shorter way to one row than its key.
WITH due AS MATERIALIZED (
  SELECT project_id, id FROM executions WHERE phase = 'waiting' AND due_at_us <= :now_us ORDER BY due_at_us LIMIT :limit
  {FOR UPDATE SKIP LOCKED})
UPDATE executions SET phase = 'queued', rank = -priority, ready_at_us = due_at_us, due_at_us = NULL,
  losses = CASE WHEN timer_key IS NULL THEN losses ELSE 0 END,
  undelivered = CASE WHEN timer_key IS NULL THEN undelivered ELSE 0 END, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  limited = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END
WHERE phase || '' = 'waiting' AND due_at_us <= :now_us AND (project_id, id) IN (SELECT project_id, id FROM due)
RETURNING id, next_seq - 1, moved_at_us, attempt, timer_key, project_id, deployment_id;

-- name: ready_delayed
-- picks: queued executions whose start time has come
WITH due AS MATERIALIZED (
  SELECT project_id, id FROM executions WHERE phase = 'queued' AND due_at_us <= :now_us ORDER BY due_at_us LIMIT :limit
  {FOR UPDATE SKIP LOCKED})
UPDATE executions SET ready_at_us = due_at_us, due_at_us = NULL
WHERE phase = 'queued' AND due_at_us <= :now_us AND (project_id, id) IN (SELECT project_id, id FROM due)
RETURNING project_id, deployment_id;

-- name: overdue
SELECT project_id, id, phase FROM executions WHERE phase = :phase AND due_at_us <= :now_us ORDER BY due_at_us LIMIT :limit {FOR UPDATE SKIP LOCKED};

-- name: next_due
SELECT MIN(at_us) FROM (
  SELECT MIN(due_at_us) AS at_us FROM executions WHERE phase = 'waiting' AND due_at_us IS NOT NULL
  UNION ALL SELECT MIN(due_at_us) FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION ALL SELECT MIN(due_at_us) FROM executions WHERE phase = 'running' AND due_at_us IS NOT NULL
  UNION ALL SELECT MIN(due_at_us) FROM executions WHERE phase = 'cancelling' AND due_at_us IS NOT NULL) AS times;

-- name: cancel_idle
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL, error = NULL,
  cancelled_at_us = COALESCE(cancelled_at_us, :now_us), cancelled_by = COALESCE(cancelled_by, :cancelled_by),
  next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('queued', 'waiting', 'blocked')
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: cancel_waking
-- holds: execution=id
-- on_cancel="wake": the waiting execution runs once more so that its code can clean up. (`phase || ''`: see wake_timers.)
UPDATE executions SET phase = 'queued', rank = -priority, ready_at_us = :now_us, due_at_us = NULL, limited = 0,
  cancelled_at_us = :now_us, cancelled_by = :cancelled_by, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase || '' = 'waiting' AND cancelled_by IS NULL
RETURNING next_seq - 1, moved_at_us, deployment_id, attempt;

-- name: ask_cancel
-- holds: execution=id
UPDATE executions SET phase = 'cancelling', cancelled_at_us = :now_us, cancelled_by = :cancelled_by,
  due_at_us = :due_at_us, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running'
RETURNING next_seq - 1, moved_at_us, assigned_to_worker, attempt;

-- name: overrule
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'cancelling'
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: lose
-- holds: execution=id
UPDATE executions SET phase = 'queued', due_at_us = :due_at_us, rank = -priority,
  ready_at_us = COALESCE(:due_at_us, :now_us{::BIGINT}), losses = :losses, undelivered = :undelivered, next_seq = next_seq + 1,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  limited = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING next_seq, moved_at_us, deployment_id;

-- name: poison
-- holds: execution=id
UPDATE executions SET phase = 'failed', error = :error, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  losses = losses + 1, next_seq = next_seq + 1, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING next_seq, moved_at_us, workflow_id, parent_execution_id, step_key, limited, deployment_id;

-- name: unblock
-- picks: the blocked executions of a deployment that registers anew
UPDATE executions SET phase = 'queued', error = NULL, rank = -priority, ready_at_us = :now_us, next_seq = next_seq + 1,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us),
  limited = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = executions.queue_name AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END
WHERE project_id = :project_id AND deployment_id = :deployment_id AND phase IN ('waiting', 'blocked') AND phase = 'blocked'
RETURNING id, next_seq - 1, moved_at_us, attempt;

-- name: adopt_early
-- picks: executions that were accepted before the project had a deployment
-- They get what the deployment says of their workflow, as if they were started now.
UPDATE executions SET deployment_id = :deployment_id, output_schema_name = w.output_schema_name,
  run_timeout_seconds = COALESCE(executions.run_timeout_seconds, w.run_timeout_seconds), wake_on_cancel = w.wake_on_cancel,
  queue_name = CASE WHEN executions.queue_name = w.id THEN COALESCE(w.queue_name, w.id) ELSE executions.queue_name END,
  limited = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.project_id = executions.project_id
    AND q.name = CASE WHEN executions.queue_name = w.id THEN COALESCE(w.queue_name, w.id) ELSE executions.queue_name END
    AND (q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL)) THEN 1 ELSE 0 END
FROM workflows w
WHERE w.project_id = :project_id AND w.deployment_id = :deployment_id AND w.id = executions.workflow_id
  AND executions.project_id = :project_id AND executions.phase = 'queued' AND executions.deployment_id IS NULL
RETURNING executions.id;

-- name: children_to_cancel
-- As children, and whether each is over. One that has ended in the same group, so that its end is not in the journal of
-- its parent yet, is not: a cancel waits for the verb that ends it, or the two would see each other half done.
SELECT id, CASE WHEN phase IN ('completed', 'failed', 'cancelled') AND (step_key IS NULL OR EXISTS (
  SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = executions.step_key AND j.kind = 'child')) THEN 1 ELSE 0 END
FROM executions WHERE project_id = :project_id AND parent_execution_id = :id ORDER BY id;

-- name: children
SELECT id, phase FROM executions WHERE project_id = :project_id AND parent_execution_id = :id ORDER BY id;

-- ==== executions: deletion =======================================================================================

-- name: delete_execution
-- holds: execution=id
DELETE FROM executions WHERE project_id = :project_id AND id = :id AND phase IN ('completed', 'failed', 'cancelled')
RETURNING id;

-- name: delete_journal
-- holds: execution=id
DELETE FROM journal WHERE execution_id = :id;

-- name: delete_waits
-- holds: execution=id
DELETE FROM waits WHERE execution_id = :id;

-- name: delete_logs
-- holds: execution=id
DELETE FROM logs WHERE execution_id = :id;

-- name: delete_tags
-- holds: execution=id
DELETE FROM execution_tags WHERE execution_id = :id;

-- name: oldest_executions
-- A window of the walk that retention makes: the rows are looked at, whatever they are, so that a store where nothing is
-- past its time is not walked to its end to find that out.
SELECT project_id, id, workflow_id, completed_at_us, created_at_us, next_seq FROM executions
WHERE (project_id, id) > (:project_id, :after) ORDER BY project_id, id LIMIT :limit;

-- name: final_of_user
SELECT id FROM executions WHERE project_id = :project_id AND user_id = :user_id
  AND phase IN ('completed', 'failed', 'cancelled') ORDER BY id LIMIT :limit;

-- name: open_of_user
SELECT COUNT(*) FROM executions WHERE project_id = :project_id AND user_id = :user_id
  AND phase NOT IN ('completed', 'failed', 'cancelled');

-- name: final_of_session
-- Those of the session, and the one that it is named after: two seeks, which an OR would not be.
SELECT id FROM (
  SELECT id, phase FROM executions WHERE project_id = :project_id AND session_id = :session_id
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND id = :session_id
    AND (session_id IS NULL OR session_id <> :session_id)) AS of_session
WHERE phase IN ('completed', 'failed', 'cancelled') ORDER BY id LIMIT :limit;

-- name: open_of_session
SELECT COUNT(*) FROM (
  SELECT phase FROM executions WHERE project_id = :project_id AND session_id = :session_id
  UNION ALL SELECT phase FROM executions WHERE project_id = :project_id AND id = :session_id
    AND (session_id IS NULL OR session_id <> :session_id)) AS of_session
WHERE phase NOT IN ('completed', 'failed', 'cancelled');

-- name: prune_events
-- picks: events past their time
DELETE FROM events WHERE (project_id, topic, seq) IN (
  SELECT project_id, topic, seq FROM events WHERE created_at_us < :before_us LIMIT :limit) RETURNING seq;

-- ==== executions: looks ==========================================================================================

-- name: get_execution
SELECT id, project_id, workflow_id, deployment_id, phase, payload, result, error, created_at_us, started_at_us,
  completed_at_us, assigned_to_worker, parent_execution_id, root_execution_id, retry_count, step_key, queue_name,
  concurrency_key, batch_id, session_id, user_id, output_schema_name, cancelled_at_us, cancelled_by, run_timeout_seconds,
  key, attempt, tags, progress, due_at_us, next_seq
FROM executions WHERE project_id = :project_id AND id = :id;

-- name: read_end
SELECT e.id, e.phase, e.result, e.error,
  CASE WHEN e.phase = 'failed' THEN
    (SELECT j.value FROM journal j WHERE j.execution_id = e.id AND j.kind = 'failed' ORDER BY j.seq DESC LIMIT 1) END
FROM executions e WHERE e.project_id = :project_id AND e.id = :id;

-- name: list_executions
-- One text for all filters: a NULL filter is none. Walks the primary key, newest first, from the cursor; `floor_id` bounds
-- how far back filters that have no index of their own look.
SELECT id, project_id, workflow_id, deployment_id, phase, payload, result, error, created_at_us, started_at_us,
  completed_at_us, assigned_to_worker, parent_execution_id, root_execution_id, retry_count, step_key, queue_name,
  concurrency_key, batch_id, session_id, user_id, output_schema_name, cancelled_at_us, cancelled_by, run_timeout_seconds,
  key, attempt, tags, progress, due_at_us, next_seq
FROM executions
WHERE project_id = :project_id AND id < :before AND id >= :floor_id
  AND (:phases{::TEXT} IS NULL OR {INSTR|STRPOS}(:phases, ' ' || phase || ' ') > 0)
  AND (:workflow_id{::TEXT} IS NULL OR workflow_id = :workflow_id)
  AND (:session_id{::TEXT} IS NULL OR session_id = :session_id OR id = :session_id)
  AND (:user_id{::TEXT} IS NULL OR user_id = :user_id)
  AND (:queue_name{::TEXT} IS NULL OR queue_name = :queue_name)
  AND (:batch_id{::TEXT} IS NULL OR batch_id = :batch_id)
  AND (:parent_execution_id{::TEXT} IS NULL OR parent_execution_id = :parent_execution_id)
  AND (:root_execution_id{::TEXT} IS NULL OR root_execution_id = :root_execution_id)
  AND (:deployment_id{::TEXT} IS NULL OR deployment_id = :deployment_id)
  AND (:key{::TEXT} IS NULL OR key = :key)
  AND (:tag_name{::TEXT} IS NULL OR EXISTS (SELECT 1 FROM execution_tags t WHERE t.project_id = executions.project_id
    AND t.name = :tag_name AND t.value = :tag_value AND t.execution_id = executions.id))
  AND (:created_after_us{::BIGINT} IS NULL OR created_at_us >= :created_after_us)
  AND (:created_before_us{::BIGINT} IS NULL OR created_at_us < :created_before_us)
ORDER BY id DESC LIMIT :limit;

-- name: list_sizes
-- How large they are that list_executions would answer with.
SELECT OCTET_LENGTH(payload) + COALESCE(OCTET_LENGTH(result), 0)
FROM executions
WHERE project_id = :project_id AND id < :before AND id >= :floor_id
  AND (:phases{::TEXT} IS NULL OR {INSTR|STRPOS}(:phases, ' ' || phase || ' ') > 0)
  AND (:workflow_id{::TEXT} IS NULL OR workflow_id = :workflow_id)
  AND (:session_id{::TEXT} IS NULL OR session_id = :session_id OR id = :session_id)
  AND (:user_id{::TEXT} IS NULL OR user_id = :user_id)
  AND (:queue_name{::TEXT} IS NULL OR queue_name = :queue_name)
  AND (:batch_id{::TEXT} IS NULL OR batch_id = :batch_id)
  AND (:parent_execution_id{::TEXT} IS NULL OR parent_execution_id = :parent_execution_id)
  AND (:root_execution_id{::TEXT} IS NULL OR root_execution_id = :root_execution_id)
  AND (:deployment_id{::TEXT} IS NULL OR deployment_id = :deployment_id)
  AND (:key{::TEXT} IS NULL OR key = :key)
  AND (:tag_name{::TEXT} IS NULL OR EXISTS (SELECT 1 FROM execution_tags t WHERE t.project_id = executions.project_id
    AND t.name = :tag_name AND t.value = :tag_value AND t.execution_id = executions.id))
  AND (:created_after_us{::BIGINT} IS NULL OR created_at_us >= :created_after_us)
  AND (:created_before_us{::BIGINT} IS NULL OR created_at_us < :created_before_us)
ORDER BY id DESC LIMIT :limit;

-- name: list_floor
SELECT id FROM executions WHERE project_id = :project_id AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :depth;

-- name: count_phases
-- One branch for each index of open executions: a table full of finished ones is not touched.
SELECT project_id, workflow_id, phase, COUNT(*) FROM (
  SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND limited = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND limited = 1 AND due_at_us IS NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase IN ('running', 'cancelling')
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase IN ('waiting', 'blocked')) AS open
GROUP BY project_id, workflow_id, phase;

-- name: count_queued
SELECT project_id, deployment_id, queue_name, COUNT(*), MIN(ready_at_us) FROM (
  SELECT project_id, deployment_id, queue_name, ready_at_us FROM executions
  WHERE phase = 'queued' AND limited = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, deployment_id, queue_name, ready_at_us FROM executions
  WHERE phase = 'queued' AND limited = 1 AND due_at_us IS NULL) AS ready
GROUP BY project_id, deployment_id, queue_name;

-- name: unserved
-- Ready work of deployments without a live registration.
SELECT e.project_id, e.deployment_id, COUNT(*), MIN(e.ready_at_us) FROM (
  SELECT project_id, deployment_id, ready_at_us FROM executions
  WHERE phase = 'queued' AND limited = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, deployment_id, ready_at_us FROM executions
  WHERE phase = 'queued' AND limited = 1 AND due_at_us IS NULL) AS e
WHERE e.ready_at_us < :before_us AND NOT EXISTS (
  SELECT 1 FROM workers w WHERE w.project_id = e.project_id AND w.deployment_id = e.deployment_id)
GROUP BY e.project_id, e.deployment_id;

-- ==== the lookout: one look for all that wait ====================================================================

-- name: ended_among
SELECT e.id, e.phase, e.result, e.error,
  CASE WHEN e.phase = 'failed' THEN
    (SELECT j.value FROM journal j WHERE j.execution_id = e.id AND j.kind = 'failed' ORDER BY j.seq DESC LIMIT 1) END
FROM executions e WHERE e.project_id = :project_id AND e.phase IN ('completed', 'failed', 'cancelled')
  AND e.id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: journals_at
SELECT i.value, (SELECT MAX(seq) FROM journal WHERE execution_id = i.value),
  (SELECT MAX(n) FROM logs WHERE execution_id = i.value)
FROM {json_each(:ids) i|json_array_elements_text(:ids::JSON) i (value)};

-- name: topics_at
SELECT topic, last_seq FROM topics WHERE project_id = :project_id AND topic {IN (SELECT value FROM json_each(:topics))|= ANY(ARRAY(SELECT json_array_elements_text(:topics::JSON)))};

-- name: news_of_workers
-- Held executions whose last row somebody else wrote; the reply to their worker's next report would bring it.
SELECT e.assigned_to_worker, e.id, j.seq FROM executions e JOIN journal j ON j.execution_id = e.id AND j.seq = e.next_seq - 1
WHERE e.phase IN ('running', 'cancelling') AND j.kind IN ('event', 'resume', 'child', 'cancel_asked')
  AND e.assigned_to_worker {IN (SELECT value FROM json_each(:workers))|= ANY(ARRAY(SELECT json_array_elements_text(:workers::JSON)))};

-- name: unacknowledged_claims
SELECT assigned_to_worker, claim_id FROM executions
WHERE phase IN ('running', 'cancelling') AND acked = 0 AND claim_id IS NOT NULL
  AND assigned_to_worker {IN (SELECT value FROM json_each(:workers))|= ANY(ARRAY(SELECT json_array_elements_text(:workers::JSON)))}
GROUP BY assigned_to_worker, claim_id;

-- name: ready_deployments
-- Not EXISTS: PostgreSQL would read all that is ready, whatever its deployment, into a table to look them up in.
SELECT d.value FROM {json_each(:deployments) d|json_array_elements_text(:deployments::JSON) d (value)}
WHERE (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = d.value AND phase = 'queued'
    AND limited = 0 AND due_at_us IS NULL LIMIT 1) IS NOT NULL
  OR (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = d.value AND phase = 'queued'
    AND limited = 1 AND due_at_us IS NULL LIMIT 1) IS NOT NULL;

-- ==== journal ====================================================================================================

-- name: insert_journal
-- holds: execution=execution_id
-- bulk: seq at_us attempt ok started_at_us tries; bytes value
INSERT INTO journal (execution_id, seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries)
VALUES (:execution_id, :seq, :at_us, :kind, :attempt, :key, :name, :fingerprint, :ok, :value, :started_at_us, :tries);

-- name: read_journal
SELECT seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries FROM journal
WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: take_back_step
-- holds: execution=execution_id
UPDATE journal SET kind = 'step_failed'
WHERE execution_id = :execution_id AND key = :key AND kind = 'step' AND ok = 0 RETURNING seq;

-- ==== waits ======================================================================================================

-- name: read_wait
SELECT state, topic, after_seq, event_seq, data FROM waits WHERE execution_id = :execution_id AND key = :key;

-- name: read_answer
SELECT value FROM journal WHERE execution_id = :execution_id AND key = :key AND kind = 'resume';

-- name: count_early
SELECT COUNT(*) FROM waits WHERE execution_id = :execution_id AND state = 'early';

-- name: insert_wait
-- holds: execution=execution_id
INSERT INTO waits (execution_id, key, project_id, state, topic, match, fingerprint, after_seq, data, opened_at_us)
VALUES (:execution_id, :key, :project_id, :state, :topic, :match, :fingerprint, :after_seq, :data, :now_us);

-- name: take_over_early
-- holds: execution=execution_id
-- Somebody answered under this key, but the code waits for an event: the answer was meant for nobody.
UPDATE waits SET state = 'open', topic = :topic, match = :match, fingerprint = :fingerprint, after_seq = :after_seq,
  data = :data, opened_at_us = :now_us
WHERE execution_id = :execution_id AND key = :key AND state = 'early' RETURNING key;

-- name: reopen_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'open' WHERE execution_id = :execution_id AND key = :key AND state = 'closed' RETURNING key;

-- name: meet_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'met', event_seq = :event_seq, data = COALESCE(:data, data)
WHERE execution_id = :execution_id AND key = :key AND state IN ('open', 'early') RETURNING key;

-- name: close_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'closed' WHERE execution_id = :execution_id AND key = :key AND state = 'open' RETURNING key;

-- name: close_waits
-- holds: execution=execution_id
-- Whoever has ended waits for nothing: publishing need not look at it any more.
UPDATE waits SET state = 'closed' WHERE execution_id = :execution_id AND state = 'open';

-- name: open_waits
SELECT key FROM waits WHERE execution_id = :execution_id AND state = 'open' ORDER BY key;

-- name: list_waits
SELECT key, topic, match, data, opened_at_us FROM waits WHERE execution_id = :execution_id AND state = 'open'
ORDER BY opened_at_us, key;

-- name: taken_events
SELECT event_seq FROM waits WHERE execution_id = :execution_id AND topic = :topic AND event_seq IS NOT NULL;

-- name: waiting_for
SELECT execution_id, key, match, after_seq FROM waits
WHERE project_id = :project_id AND topic = :topic AND state = 'open' ORDER BY execution_id, opened_at_us, key;

-- ==== topics and events ==========================================================================================

-- name: lock_topic
-- holds: topic=topic
-- effect: none
-- The common lock of publishing and of registering a wait (I5), and the topic's sequence.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, 0)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq RETURNING last_seq;

-- name: advance_topic
-- holds: topic=topic
UPDATE topics SET last_seq = last_seq + :events WHERE project_id = :project_id AND topic = :topic RETURNING last_seq;

-- name: insert_event
-- holds: topic=topic
INSERT INTO events (project_id, topic, seq, id, event_type, data, dedup_key, created_at_us)
VALUES (:project_id, :topic, :seq, :id, :event_type, :data, :dedup_key, :now_us);

-- name: find_event
SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND dedup_key = :dedup_key;

-- name: read_events
SELECT id, seq, topic, event_type, data, created_at_us FROM events
WHERE project_id = :project_id AND topic = :topic AND seq > :after ORDER BY seq LIMIT :limit;

-- name: last_event_before
-- The newest event older than a moment: everything after it is what an execution of that age may take.
SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND created_at_us < :before_us
ORDER BY seq DESC LIMIT 1;

-- name: newest_event
SELECT MAX(seq) FROM events WHERE project_id = :project_id AND topic = :topic;

-- ==== logs =======================================================================================================

-- name: last_log
SELECT MAX(n) FROM logs WHERE execution_id = :execution_id;

-- name: insert_log
-- holds: execution=execution_id
INSERT INTO logs (execution_id, n, at_us, level, text) VALUES (:execution_id, :n, :at_us, :level, :text);

-- name: trim_logs
-- holds: execution=execution_id
DELETE FROM logs WHERE execution_id = :execution_id AND n <= :upto;

-- name: read_logs
SELECT n, at_us, level, text FROM logs WHERE execution_id = :execution_id AND n > :after ORDER BY n LIMIT :limit;

-- ==== schedules ==================================================================================================

-- name: insert_schedule
-- holds: schedule=id
INSERT INTO schedules (project_id, id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds,
  payload, declared, next_at_us, created_at_us, updated_at_us)
VALUES (:project_id, :id, :workflow_id, :key, :cron, :timezone, 'active', :overlap, :missed, :missed_window_seconds,
  :payload, :declared, :next_at_us, :now_us, :now_us)
ON CONFLICT (project_id, workflow_id, key) DO NOTHING RETURNING id;

-- name: find_schedule
SELECT id FROM schedules WHERE project_id = :project_id AND workflow_id = :workflow_id AND key = :key;

-- name: count_schedules
SELECT COUNT(*) FROM schedules WHERE project_id = :project_id;

-- name: read_schedule
SELECT id, project_id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds, payload, declared,
  next_at_us, last_slot_us, created_at_us, updated_at_us
FROM schedules WHERE project_id = :project_id AND id = :id;

-- name: lock_schedule
-- holds: schedule=id
-- As read_schedule, for whoever changes it.
SELECT id, project_id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds, payload, declared,
  next_at_us, last_slot_us, created_at_us, updated_at_us
FROM schedules WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: lock_schedule_if_free
-- holds: schedule=id
-- As read_schedule, for whoever fires it. No row: another server is at it at this moment, or it is gone.
SELECT id, project_id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds, payload, declared,
  next_at_us, last_slot_us, created_at_us, updated_at_us
FROM schedules WHERE project_id = :project_id AND id = :id {FOR UPDATE SKIP LOCKED};

-- name: update_schedule
-- holds: schedule=id
UPDATE schedules SET cron = :cron, timezone = :timezone, status = :status, overlap = :overlap, missed = :missed,
  missed_window_seconds = :missed_window_seconds, payload = :payload, declared = :declared, next_at_us = :next_at_us,
  updated_at_us = :now_us
WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: advance_schedule
-- holds: schedule=id
UPDATE schedules SET next_at_us = :next_at_us, last_slot_us = :last_slot_us WHERE project_id = :project_id AND id = :id
RETURNING id;

-- name: delete_schedule
-- holds: schedule=id
DELETE FROM schedules WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: declared_schedules
SELECT id, workflow_id, key FROM schedules WHERE project_id = :project_id AND declared = 1 ORDER BY id;

-- name: current_deployment
SELECT current_deployment_id FROM projects WHERE id = :project_id;

-- name: list_schedules
SELECT id, project_id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds, payload, declared,
  next_at_us, last_slot_us, created_at_us, updated_at_us
FROM schedules WHERE project_id = :project_id AND id < :before AND (:workflow_id{::TEXT} IS NULL OR workflow_id = :workflow_id)
ORDER BY id DESC LIMIT :limit;

-- name: scheduled_workflows
SELECT workflow_id FROM schedules WHERE project_id = :project_id AND status = 'active' GROUP BY workflow_id ORDER BY workflow_id;

-- name: due_schedules
SELECT project_id, id, missed, next_at_us FROM schedules WHERE status = 'active' AND next_at_us <= :now_us
ORDER BY next_at_us LIMIT :limit;

-- name: unblocked_schedules
-- Those with a fire that waits for an execution which has ended meanwhile.
SELECT s.project_id, s.id FROM schedules s WHERE s.status = 'active'
  AND s.id IN (SELECT w.schedule_id FROM schedule_fires w WHERE w.state = 'waiting')
  AND NOT EXISTS (SELECT 1 FROM schedule_fires f JOIN executions e ON e.project_id = f.project_id AND e.id = f.execution_id
    WHERE f.schedule_id = s.id AND (f.state = 'started' OR f.state = 'waiting') AND f.state = 'started' AND e.phase NOT IN ('completed', 'failed', 'cancelled'))
LIMIT :limit;

-- name: waiting_workflows
SELECT s.workflow_id FROM schedules s
WHERE s.id IN (SELECT w.schedule_id FROM schedule_fires w WHERE w.state = 'waiting') GROUP BY s.workflow_id;

-- name: next_schedule
SELECT MIN(next_at_us) FROM schedules WHERE status = 'active';

-- name: insert_fire
-- holds: schedule=schedule_id
-- I7: no row comes back when this slot was fired before.
INSERT INTO schedule_fires (schedule_id, slot_us, by_hand, project_id, state, execution_id, reason, fired_at_us)
VALUES (:schedule_id, :slot_us, :by_hand, :project_id, :state, :execution_id, :reason, :now_us)
ON CONFLICT (schedule_id, slot_us, by_hand) DO NOTHING RETURNING slot_us;

-- name: update_fire
-- holds: schedule=schedule_id
UPDATE schedule_fires SET state = :state, execution_id = :execution_id, reason = :reason, fired_at_us = :now_us
WHERE schedule_id = :schedule_id AND slot_us = :slot_us AND by_hand = '' RETURNING slot_us;

-- name: settle_fires
-- holds: schedule=schedule_id
UPDATE schedule_fires SET state = 'done'
WHERE schedule_id = :schedule_id AND (state = 'started' OR state = 'waiting') AND state = 'started' AND NOT EXISTS (
  SELECT 1 FROM executions e WHERE e.project_id = schedule_fires.project_id AND e.id = schedule_fires.execution_id
    AND e.phase NOT IN ('completed', 'failed', 'cancelled')) RETURNING slot_us;

-- name: open_fires
-- How many are started and have not ended, how many wait, and the first that waits.
SELECT COUNT(CASE WHEN state = 'started' THEN 1 END), COUNT(CASE WHEN state = 'waiting' THEN 1 END),
  MIN(CASE WHEN state = 'waiting' THEN slot_us END)
FROM schedule_fires WHERE schedule_id = :schedule_id AND (state = 'started' OR state = 'waiting');

-- name: list_fires
-- A fire is settled when its schedule is looked at again; whoever reads it before sees what is true all the same.
SELECT slot_us, by_hand, CASE WHEN state = 'started' AND NOT EXISTS (
    SELECT 1 FROM executions e WHERE e.project_id = schedule_fires.project_id AND e.id = schedule_fires.execution_id
      AND e.phase NOT IN ('completed', 'failed', 'cancelled')) THEN 'done' ELSE state END,
  execution_id, reason, fired_at_us FROM schedule_fires
WHERE schedule_id = :schedule_id AND slot_us < :before_us ORDER BY slot_us DESC, by_hand DESC LIMIT :limit;

-- name: delete_fires
-- holds: schedule=schedule_id
DELETE FROM schedule_fires WHERE schedule_id = :schedule_id;

-- name: prune_fires
-- picks: fires of long ago that are over
DELETE FROM schedule_fires WHERE (schedule_id, slot_us, by_hand) IN (
  SELECT schedule_id, slot_us, by_hand FROM schedule_fires
  WHERE fired_at_us < :before_us AND state IN ('done', 'skipped') LIMIT :limit) RETURNING slot_us;

-- ==== doctor: the invariants as queries; each must find nothing ==================================================

-- name: doctor_end_recorded_once
SELECT e.id FROM executions e LEFT JOIN journal j ON j.execution_id = e.id AND j.kind IN ('completed', 'failed', 'cancelled')
GROUP BY e.id, e.phase
HAVING COUNT(j.seq) <> CASE WHEN e.phase IN ('completed', 'failed', 'cancelled') THEN 1 ELSE 0 END LIMIT 20;

-- name: doctor_step_recorded_once
SELECT execution_id FROM journal WHERE kind = 'step' GROUP BY execution_id, key HAVING COUNT(*) <> 1 LIMIT 20;

-- name: doctor_attempts_never_go_back
SELECT execution_id FROM (
  SELECT execution_id, attempt, LAG(attempt) OVER (PARTITION BY execution_id ORDER BY seq) AS earlier FROM journal) AS rows
WHERE attempt < earlier LIMIT 20;

-- name: doctor_time_never_goes_back
SELECT execution_id FROM (
  SELECT execution_id, at_us, LAG(at_us) OVER (PARTITION BY execution_id ORDER BY seq) AS earlier FROM journal) AS rows
WHERE at_us < earlier LIMIT 20;

-- name: doctor_sequence_has_no_gap
SELECT e.id FROM executions e LEFT JOIN journal j ON j.execution_id = e.id GROUP BY e.id, e.next_seq
HAVING COUNT(j.seq) <> e.next_seq - 1 OR COALESCE(MAX(j.seq), 0) <> e.next_seq - 1 LIMIT 20;

-- name: doctor_waiting_for_something
SELECT e.id FROM executions e WHERE e.phase = 'waiting' AND e.due_at_us IS NULL
  AND NOT EXISTS (SELECT 1 FROM waits w WHERE w.execution_id = e.id AND w.state = 'open')
  AND NOT EXISTS (SELECT 1 FROM executions c WHERE c.project_id = e.project_id AND c.parent_execution_id = e.id
    AND c.phase NOT IN ('completed', 'failed', 'cancelled')) LIMIT 20;

-- name: doctor_child_end_told
SELECT c.id FROM executions c JOIN executions p ON p.project_id = c.project_id AND p.id = c.parent_execution_id
WHERE c.step_key IS NOT NULL AND c.phase IN ('completed', 'failed', 'cancelled')
  AND p.phase IN ('queued', 'running', 'waiting', 'blocked')
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = p.id AND j.kind = 'child' AND j.key = c.step_key) LIMIT 20;

-- name: doctor_held_by_a_registration
SELECT e.id FROM executions e WHERE e.phase IN ('running', 'cancelling')
  AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = e.assigned_to_worker) LIMIT 20;

-- name: doctor_limited_as_its_queue
-- What wakes only to clean up is admitted whatever the limit.
SELECT e.id FROM executions e LEFT JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase IN ('queued', 'running', 'cancelling') AND e.cancelled_by IS NULL
  AND e.limited <> CASE WHEN q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL THEN 1 ELSE 0 END LIMIT 20;

-- name: doctor_final_waits_for_nothing
SELECT w.execution_id FROM waits w JOIN executions e ON e.project_id = w.project_id AND e.id = w.execution_id
WHERE w.state = 'open' AND e.phase IN ('completed', 'failed', 'cancelled') LIMIT 20;

-- name: doctor_topic_has_no_gap
SELECT t.topic FROM topics t JOIN events v ON v.project_id = t.project_id AND v.topic = t.topic
GROUP BY t.project_id, t.topic, t.last_seq HAVING MAX(v.seq) <> t.last_seq OR COUNT(*) <> MAX(v.seq) - MIN(v.seq) + 1 LIMIT 20;

-- name: doctor_schedule_goes_on
-- What is next comes after all that was fired.
SELECT id FROM schedules WHERE next_at_us <= last_slot_us LIMIT 20;

-- name: doctor_execution_of_one_fire
SELECT execution_id FROM schedule_fires WHERE execution_id IS NOT NULL GROUP BY execution_id HAVING COUNT(*) > 1 LIMIT 20;

-- name: doctor_orphan_rows
SELECT execution_id FROM journal WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = journal.execution_id)
UNION SELECT execution_id FROM waits WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = waits.execution_id)
UNION SELECT execution_id FROM logs WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = logs.execution_id)
UNION SELECT schedule_id FROM schedule_fires WHERE NOT EXISTS (SELECT 1 FROM schedules s WHERE s.id = schedule_fires.schedule_id) LIMIT 20;

-- ==== what the space is used for (`perdure db size`); each reads whole tables =========================================

-- name: size_executions
SELECT project_id, workflow_id, COUNT(*),
  CAST(SUM(CASE WHEN phase IN ('completed', 'failed', 'cancelled') THEN 0 ELSE 1 END) AS BIGINT),
  CAST(SUM(OCTET_LENGTH(payload) + COALESCE(OCTET_LENGTH(result), 0) + COALESCE(OCTET_LENGTH(error), 0)
    + COALESCE(OCTET_LENGTH(tags), 0) + COALESCE(OCTET_LENGTH(progress), 0)) AS BIGINT)
FROM executions GROUP BY project_id, workflow_id;

-- name: size_journal
SELECT e.project_id, e.workflow_id, COUNT(*), CAST(SUM(OCTET_LENGTH(j.value)) AS BIGINT)
FROM executions e JOIN journal j ON j.execution_id = e.id GROUP BY e.project_id, e.workflow_id;

-- name: size_logs
SELECT e.project_id, e.workflow_id, COUNT(*), CAST(SUM(OCTET_LENGTH(l.text)) AS BIGINT)
FROM executions e JOIN logs l ON l.execution_id = e.id GROUP BY e.project_id, e.workflow_id;
