-- Reports of workers; all fenced by attempt, worker and report number.

-- An execution's own time never goes back. After a step back of the clock, its code counts from a time that is ahead: a
-- timer it requests then begins now, and lasts its full duration. Less than a minute counts as a difference between
-- servers.

-- text: due
due_at_us = :due_at_us{::BIGINT} - CASE WHEN {= time_is_ahead} THEN moved_at_us - :now_us ELSE 0 END

-- text: waits_since
ready_at_us = CASE WHEN {= time_is_ahead} THEN :now_us ELSE {MAX|GREATEST}(moved_at_us, :now_us) END,
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)

-- text: waits_open
COALESCE((SELECT 1 FROM waits WHERE waits.execution_id = executions.id AND waits.state = 'open' LIMIT 1), 0)

-- name: acknowledge
-- holds: execution=id
-- The next outcome resets lost deliveries, not this: an execution handed back and out again must be acknowledged first
-- again.
UPDATE executions SET acked = 1
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id
RETURNING {= moved};

-- name: advance
-- holds: execution=id
-- bulk: rows number outcomes now_us attempt; bytes progress
UPDATE executions SET next_seq = next_seq + :rows, acked = 1, report_number = :number,
  losses = CASE WHEN :outcomes > 0 THEN 0 ELSE losses END,
  undelivered = CASE WHEN :outcomes > 0 THEN 0 ELSE undelivered END, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING {= moved}, COALESCE(root_execution_id, id) AS root_id, COALESCE(session_id, id) AS session_id, user_id,
  forked_from, keys_id;

-- name: advance_next
-- holds: execution=id
-- answer: how many
-- bulk: number now_us attempt seq
-- As advance for one step's outcome, if the journal has not grown since the worker looked and the clock has not gone
-- back: its number and time are then known beforehand.
UPDATE executions SET next_seq = next_seq + 1, acked = 1, report_number = :number, losses = 0, undelivered = 0,
  moved_at_us = :now_us
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number AND next_seq = :seq AND moved_at_us <= :now_us
{RETURNING id};

-- name: count_outcome
-- holds: execution=id
-- A seq for an outcome that appears only while a report is taken.
UPDATE executions SET next_seq = next_seq + 1, losses = 0, undelivered = 0
WHERE project_id = :project_id AND id = :id RETURNING next_seq;

-- name: complete
-- holds: execution=id
-- bulk: now_us rows number attempt result_seq upto; bytes result progress
-- `upto` is the next `seq`, if the worker must have seen all rows.
UPDATE executions SET phase = 'completed', result = :result, result_seq = :result_seq, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number AND next_seq <= :upto
RETURNING {= ended}, {= waits_open} AS waits;

-- name: fail
-- holds: execution=id
UPDATE executions SET phase = 'failed', error = :error, completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase IN ('running', 'cancelling') AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING {= ended}, {= waits_open} AS waits;

-- name: confirm_cancel
-- holds: execution=id
UPDATE executions SET phase = 'cancelled', completed_at_us = {MAX|GREATEST}(moved_at_us, :now_us), due_at_us = NULL,
  next_seq = next_seq + :rows, acked = 1, report_number = :number, progress = COALESCE(:progress, progress),
  moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'cancelling' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number
RETURNING {= ended}, {= waits_open} AS waits;

-- name: suspend
-- holds: execution=id
-- bulk: due_at_us parked_seq now_us attempt
-- `ready_at_us` keeps since when it waits.
UPDATE executions SET phase = 'waiting', {= due}, timer_key = :timer_key, next_seq = next_seq + 1,
  parked_worker = :parked_worker, parked_seq = :parked_seq, {= waits_since}
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt
  AND assigned_to_worker = :worker_id
RETURNING {= moved}, {= waits_open} AS waits;

-- name: suspend_next
-- holds: execution=id
-- bulk: due_at_us parked_seq now_us attempt number seq
-- `advance` and `suspend` at once, for a report that only suspends. The worker has seen all rows, and a timer or the
-- end of its newest child is to come.
UPDATE executions SET phase = 'waiting', acked = 1, report_number = :number, {= due}, timer_key = :timer_key,
  next_seq = next_seq + 1, parked_worker = :parked_worker, parked_seq = :parked_seq, {= waits_since}
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number AND next_seq = :seq
  AND (:due_at_us{::BIGINT} IS NOT NULL OR (SELECT c.completed_at_us IS NULL FROM executions c
    WHERE c.project_id = executions.project_id AND c.parent_execution_id = executions.id ORDER BY c.id DESC LIMIT 1))
RETURNING {= moved}, {= waits_open} AS waits;

-- name: start_and_wait
-- holds: execution=id
-- bulk: due_at_us parked_seq now_us attempt number seq
-- `advance` and `suspend` at once, for a report that starts a child and waits for it. The worker has seen all rows and
-- waits for work of the same deployment. `next_seq` also counts the child's start, an outcome. Forks take the longer way.
UPDATE executions SET phase = 'waiting', acked = 1, report_number = :number, {= due}, timer_key = :timer_key,
  next_seq = next_seq + 2, parked_worker = :parked_worker, parked_seq = :parked_seq, losses = 0, undelivered = 0,
  {= waits_since}
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt
  AND assigned_to_worker = :worker_id AND report_number < :number AND next_seq = :seq AND deployment_id = :deployment_id
  AND keys_id IS NULL
RETURNING {= moved}, {= waits_open} AS waits, COALESCE(root_execution_id, id) AS root_id,
  COALESCE(session_id, id) AS session_id, user_id,
  ({= budgeted}) AS budgeted;

-- name: payload_of_size
-- holds: execution=execution_id
-- Sizes are compared first, because a value goes over the connection to be compared.
SELECT 1 FROM large_payloads WHERE execution_id = :execution_id AND OCTET_LENGTH(payload) = :size;

-- name: equals_payload
-- holds: execution=execution_id
SELECT 1 FROM large_payloads WHERE execution_id = :execution_id AND payload = :value;

-- text: steps_of_size
FROM journal j WHERE execution_id = :execution_id AND seq > :after AND seq <= :upto AND kind = 'step' AND ok = 1
  AND {= value_size} = :size

-- name: any_step_of_size
-- holds: execution=execution_id
SELECT 1 {= steps_of_size} LIMIT 1;

-- name: step_of_value
-- holds: execution=execution_id
-- The newest step after `after` with this value.
SELECT seq {= steps_of_size} AND {= value} = :value ORDER BY seq DESC LIMIT 1;

-- name: timer_fired
-- holds: execution=execution_id
SELECT 1 FROM journal WHERE execution_id = :execution_id AND key = :key AND kind = 'timer';

-- name: requeue
-- holds: execution=id
UPDATE executions SET phase = 'queued', due_at_us = :due_at_us, retry_count = retry_count + :retries,
  rank = -priority, ready_at_us = COALESCE(:due_at_us, :now_us{::BIGINT}), next_seq = next_seq + 1,
  gate = {= gate},
  parked_worker = NULL, parked_seq = NULL, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING {= moved};

-- name: block
-- holds: execution=id
UPDATE executions SET phase = 'blocked', error = :error, due_at_us = NULL, next_seq = next_seq + 1,
  parked_worker = NULL, parked_seq = NULL, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING {= moved};

-- name: hold
-- holds: execution=id
UPDATE executions SET phase = 'held', error = :error, due_at_us = NULL, next_seq = next_seq + 1, needs_protocol = 2,
  parked_worker = NULL, parked_seq = NULL, moved_at_us = {MAX|GREATEST}(moved_at_us, :now_us)
WHERE project_id = :project_id AND id = :id AND phase = 'running' AND attempt = :attempt AND assigned_to_worker = :worker_id
RETURNING {= moved};
