-- The doctor: the invariants as queries; each must find nothing.

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
  AND EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = p.id AND s.kind = 'child_started' AND s.key = c.step_key
    AND {INSTR(s.value, c.id)|POSITION(c.id IN CONVERT_FROM(s.value, 'UTF8'))} > 0)
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = p.id AND j.kind = 'child' AND j.key = c.step_key)
  AND NOT EXISTS (SELECT 1 FROM waits w WHERE w.execution_id = p.id AND w.key = c.step_key AND w.batch_id = c.batch_id
    AND w.state = 'open') LIMIT 20;

-- name: doctor_batch_end_told
SELECT w.execution_id FROM waits w JOIN executions p ON p.project_id = w.project_id AND p.id = w.execution_id
WHERE w.batch_id IS NOT NULL AND w.state = 'open' AND NOT EXISTS (SELECT 1 FROM executions c
  WHERE c.project_id = w.project_id AND c.batch_id = w.batch_id AND c.completed_at_us IS NULL) LIMIT 20;

-- name: doctor_held_by_a_registration
SELECT e.id FROM executions e WHERE e.phase IN ('running', 'cancelling')
  AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = e.assigned_to_worker) LIMIT 20;

-- name: doctor_limited_as_its_queue
-- An execution that wakes only to clean up is admitted beyond the limit. The number of a pause is gone when it starts.
SELECT e.id FROM executions e LEFT JOIN queues q ON q.project_id = e.project_id AND q.name = e.queue_name
WHERE e.phase IN ('queued', 'running', 'cancelling') AND e.cancelled_by IS NULL
  AND e.gate <> CASE WHEN {= has_limits} THEN 1 ELSE 0 END AND NOT (e.phase = 'queued' AND e.gate > 1) LIMIT 20;

-- name: doctor_held_by_a_pause
SELECT id FROM executions WHERE {= is_paused} AND gate NOT IN (SELECT number FROM pauses) LIMIT 20;

-- name: doctor_final_waits_for_nothing
SELECT w.execution_id FROM waits w JOIN executions e ON e.project_id = w.project_id AND e.id = w.execution_id
WHERE w.state = 'open' AND e.phase IN ('completed', 'failed', 'cancelled') LIMIT 20;

-- name: doctor_topic_has_no_gap
SELECT t.topic FROM topics t JOIN events v ON v.project_id = t.project_id AND v.topic = t.topic
GROUP BY t.project_id, t.topic, t.last_seq HAVING MAX(v.seq) <> t.last_seq OR COUNT(*) <> MAX(v.seq) - MIN(v.seq) + 1 LIMIT 20;

-- name: doctor_index_of_events
-- It knows no event that the topic does not, and each complete block is kept as one.
SELECT f.topic FROM event_fields f LEFT JOIN topics t ON t.project_id = f.project_id AND t.topic = f.topic
WHERE t.topic IS NULL OR f.seq > t.last_seq OR (f.part = 16 AND f.seq <= t.last_seq / 1024 * 1024) LIMIT 20;

-- name: doctor_schedule_goes_on
-- The next slot comes after all fired ones.
SELECT id FROM schedules WHERE next_at_us <= last_slot_us LIMIT 20;

-- name: doctor_execution_of_one_fire
SELECT execution_id FROM schedule_fires WHERE execution_id IS NOT NULL GROUP BY execution_id HAVING COUNT(*) > 1 LIMIT 20;

-- name: doctor_trigger_not_ahead
-- A trigger's cursor is not beyond its topic's end.
SELECT g.id FROM event_triggers g LEFT JOIN topics t ON t.project_id = g.project_id AND t.topic = g.topic
WHERE g.taken_seq > COALESCE(t.last_seq, -1) LIMIT 20;

-- name: doctor_budget_adds_up
-- A budget's reserved sum covers its open reservations; the sum also keeps those of deleted executions.
SELECT b.execution_id FROM budgets b JOIN reservations r ON r.budget_id = b.execution_id AND r.settled = 0
GROUP BY b.execution_id, b.usd_micros_reserved, b.tokens_reserved, b.calls_reserved
HAVING SUM(r.usd_micros) > b.usd_micros_reserved OR SUM(r.tokens) > b.tokens_reserved OR SUM(r.calls) > b.calls_reserved LIMIT 20;

-- name: doctor_payload_there
SELECT id FROM executions WHERE OCTET_LENGTH(payload) = 0
  AND NOT EXISTS (SELECT 1 FROM large_payloads x WHERE x.execution_id = executions.id) LIMIT 20;

-- name: doctor_shared_value_there
SELECT execution_id FROM journal j WHERE {= value} IS NULL
UNION SELECT id FROM executions WHERE result_seq IS NOT NULL AND {= result} IS NULL LIMIT 20;

-- name: doctor_orphan_rows
SELECT execution_id FROM journal WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = journal.execution_id)
UNION SELECT execution_id FROM waits WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = waits.execution_id)
UNION SELECT execution_id FROM execution_webhooks x WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = x.execution_id)
UNION SELECT execution_id FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = deliveries.execution_id)
UNION SELECT execution_id FROM approvals WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = approvals.execution_id)
UNION SELECT execution_id FROM acts WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = acts.execution_id)
UNION SELECT execution_id FROM pending_calls WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = pending_calls.execution_id)
UNION SELECT execution_id FROM execution_extras WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = execution_extras.execution_id)
UNION SELECT execution_id FROM large_payloads WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = large_payloads.execution_id)
UNION SELECT execution_id FROM logs WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = logs.execution_id)
UNION SELECT execution_id FROM stream_items WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = stream_items.execution_id)
UNION SELECT execution_id FROM search_terms WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = search_terms.execution_id)
UNION SELECT execution_id FROM budgets WHERE key IS NULL AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = budgets.execution_id)
UNION SELECT execution_id FROM reservations WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = reservations.execution_id)
UNION SELECT trace_id FROM spans WHERE NOT EXISTS (SELECT 1 FROM traces t WHERE t.project_id = spans.project_id
  AND t.trace_id = spans.trace_id)
UNION SELECT trace_id FROM traces WHERE of_execution = 1 AND NOT EXISTS (SELECT 1 FROM executions e
  WHERE e.project_id = traces.project_id AND e.id = SUBSTR(trace_id, 1, 8) || '-' || SUBSTR(trace_id, 9, 4) || '-'
    || SUBSTR(trace_id, 13, 4) || '-' || SUBSTR(trace_id, 17, 4) || '-' || SUBSTR(trace_id, 21, 12))
UNION SELECT job_id FROM bulk_items WHERE NOT EXISTS (SELECT 1 FROM bulk_jobs j WHERE j.id = bulk_items.job_id)
UNION SELECT schedule_id FROM schedule_fires WHERE NOT EXISTS (SELECT 1 FROM schedules s WHERE s.id = schedule_fires.schedule_id) LIMIT 20;

-- name: doctor_messages_counted
-- Counts the references to each message; no reference is to a missing message.
SELECT m.hash FROM messages m WHERE m.uses <> (SELECT COUNT(*) FROM transcript_entries e
  WHERE e.project_id = m.project_id AND e.hash = m.hash)
UNION SELECT e.hash FROM transcript_entries e WHERE NOT EXISTS (SELECT 1 FROM messages m
  WHERE m.project_id = e.project_id AND m.hash = e.hash) LIMIT 20;

-- name: doctor_transcript_has_no_gap
-- A transcript has all entries from the dropped ones to its version.
SELECT t.session_id FROM transcripts t LEFT JOIN transcript_entries e ON e.project_id = t.project_id AND e.session_id = t.session_id
  AND e.seq > t.dropped
GROUP BY t.project_id, t.session_id, t.version, t.dropped
HAVING COALESCE(MAX(e.seq), 0) <> CASE WHEN t.version > t.dropped THEN t.version ELSE 0 END
  OR COUNT(e.seq) <> t.version - t.dropped LIMIT 20;

-- name: doctor_turns_of_open_executions
SELECT t.execution_id FROM turns t LEFT JOIN executions e ON e.project_id = t.project_id AND e.id = t.execution_id
WHERE e.id IS NULL OR e.completed_at_us IS NOT NULL LIMIT 20;

-- name: doctor_waits_for_a_turn
-- A waiting turn has a turn to wait for, which an execution holds.
SELECT e.id FROM executions e WHERE e.phase = 'queued' AND e.due_at_us = 253402300799000001
  AND NOT EXISTS (SELECT 1 FROM turns t JOIN turns o ON o.project_id = t.project_id AND o.session_id = t.session_id
    WHERE t.execution_id = e.id AND o.state = 'open') LIMIT 20;

-- name: doctor_bulk_job_adds_up
-- Retention deletes the items of an old job before the job.
SELECT j.id FROM bulk_jobs j LEFT JOIN bulk_items i ON i.job_id = j.id
GROUP BY j.project_id, j.id, j.state, j.done, j.refused, j.later
HAVING COUNT(CASE WHEN i.state = 'done' THEN 1 END) > j.done OR COUNT(CASE WHEN i.state = 'refused' THEN 1 END) > j.refused
  OR COUNT(CASE WHEN i.state = 'later' THEN 1 END) > j.later
  OR (j.state = 'running' AND COUNT(i.job_id) < j.done + j.refused + j.later) LIMIT 20;

-- name: doctor_ended_counts_agree
-- An hour has the ends of its quarters as long as those are kept, and the marks are in order.
SELECT h.project_id FROM (SELECT project_id, at_us, SUM(n) AS n FROM ended_counts WHERE step_us = 3600000000
  GROUP BY project_id, at_us) AS h
LEFT JOIN (SELECT project_id, hour_us, SUM(n) AS n FROM (SELECT project_id, at_us / 3600000000 * 3600000000 AS hour_us, n
  FROM ended_counts WHERE step_us = 900000000) AS quarters GROUP BY project_id, hour_us) AS q
  ON q.project_id = h.project_id AND q.hour_us = h.at_us
WHERE h.at_us > (SELECT MIN(at_us) FROM ended_counts WHERE step_us = 900000000) AND h.n <> COALESCE(q.n, 0)
UNION SELECT 'marks' FROM ended_folds WHERE settled_to_us > folded_to_us LIMIT 20;
