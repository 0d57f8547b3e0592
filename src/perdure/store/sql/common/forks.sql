-- Forks and retries of executions.

-- text: source
{= execution}, session_id, priority, seed_id, keys_id, python, next_seq, created_number, initial_state, channel_context,
  (SELECT w.url FROM execution_webhooks w WHERE w.execution_id = executions.id LIMIT 1) AS webhook_url
FROM executions LEFT JOIN execution_extras x ON x.execution_id = executions.id
WHERE executions.project_id = :project_id AND executions.id = :id

-- name: lock_source
-- holds: execution=id
-- Its reports go on, and it cannot be deleted.
SELECT {= source} {FOR KEY SHARE OF executions};

-- name: lock_retried
-- holds: execution=id
SELECT {= source} {FOR UPDATE OF executions};

-- name: read_source
SELECT {= source};

-- name: holder_of_key
SELECT id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND key = :key AND retried_as IS NULL;

-- name: first_row_of
-- The first row of a step, a child or a wait.
SELECT seq FROM journal WHERE execution_id = :execution_id AND key = :key
  AND (kind = 'step' OR kind = 'step_failed' OR kind = 'timer' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started'
    OR kind = 'child' OR kind = 'published' OR kind = 'sent' OR kind = 'transcript') ORDER BY seq LIMIT 1;

-- name: newest_keys
-- The newest steps of a journal.
SELECT key FROM journal WHERE execution_id = :execution_id AND key IS NOT NULL
  AND (kind = 'step' OR kind = 'step_failed' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started')
GROUP BY key ORDER BY MAX(seq) DESC LIMIT :limit;

-- name: kept_facts
-- The rows before `cut` as a whole.
SELECT COALESCE(SUM({= value_size}), 0){::BIGINT} AS value_bytes, MAX(at_us) AS at_us, COALESCE(MAX(attempt), 0) AS attempt,
  MIN(CASE WHEN kind = 'cancel_asked' THEN seq END) AS cancel_seq,
  (SELECT at_us FROM journal WHERE execution_id = :execution_id AND seq = :cut) AS cut_at_us
FROM journal j WHERE execution_id = :execution_id AND seq < :cut;

-- name: row_at
SELECT {= row} FROM journal j WHERE execution_id = :execution_id AND seq = :seq;

-- name: failed_step_of
-- The failed outcomes at the end of a journal, after the last good one.
SELECT key FROM journal WHERE execution_id = :execution_id AND kind = 'step' AND ok = 0
  AND seq > COALESCE((SELECT seq FROM journal WHERE execution_id = :execution_id AND ok = 1
    AND (kind = 'step' OR kind = 'timer' OR kind = 'event' OR kind = 'resume' OR kind = 'child' OR kind = 'published'
      OR kind = 'sent') ORDER BY seq DESC LIMIT 1), 0)
ORDER BY seq;

-- name: hold_at
-- The hold in which an execution stood before `cut`.
SELECT value FROM journal WHERE execution_id = :execution_id AND kind = 'held'
  AND seq = (SELECT seq FROM journal WHERE execution_id = :execution_id AND seq < :cut AND kind IN ('held', 'claimed')
    ORDER BY seq DESC LIMIT 1);

-- name: budget_waits_at
-- The waits for budgets that had no outcome before `cut`, and were not closed before it.
SELECT topic, after_seq FROM waits w WHERE execution_id = :execution_id AND topic LIKE 'budget/%'
  AND (closed_at_us IS NULL
    OR closed_at_us >= (SELECT at_us FROM journal WHERE execution_id = :execution_id AND seq = :cut))
  AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.execution_id = :execution_id AND j.key = w.key AND j.kind = 'event'
    AND j.seq < :cut);

-- name: failed_steps_before
SELECT {= row} FROM journal j WHERE execution_id = :execution_id AND seq < :cut AND kind = 'step' AND ok = 0;

-- name: retried_after
-- The failures that were taken back from `cut` on.
SELECT value FROM journal WHERE execution_id = :execution_id AND seq >= :cut AND kind = 'retried';

-- name: kept_readings
SELECT value FROM journal WHERE execution_id = :execution_id AND seq < :cut AND kind = 'transcript' AND name = 'read'
ORDER BY seq;

-- name: any_transcript_row
SELECT 1 FROM journal WHERE execution_id = :execution_id AND kind = 'transcript' LIMIT 1;

-- name: open_children_at
-- The children that were started before `cut` and had not ended there, or whose end is taken back.
SELECT s.seq, s.key, s.value FROM journal s
WHERE s.execution_id = :execution_id AND s.seq < :cut AND s.kind = 'child_started' AND s.ok = 1
  AND NOT EXISTS (SELECT 1 FROM journal c WHERE c.execution_id = :execution_id AND c.key = s.key AND c.kind = 'child'
    AND c.seq < :cut
    AND c.key {NOT IN (SELECT value FROM json_each(:lost))|<> ALL(ARRAY(SELECT json_array_elements_text(:lost::JSON)))})
ORDER BY s.seq;

-- name: outcomes_after
-- The outcomes of calls between a failure and `cut`, without ends of children that were started before. Timers change
-- nothing outside.
SELECT seq, at_us, kind, key FROM journal j WHERE execution_id = :execution_id AND seq > :after AND seq < :cut AND key IS NOT NULL
  AND (kind = 'step' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started' OR kind = 'published' OR kind = 'sent'
    OR kind = 'transcript' OR kind = 'child' AND NOT EXISTS (SELECT 1 FROM journal s WHERE s.execution_id = :execution_id
      AND s.key = j.key AND s.kind = 'child_started' AND s.seq <= :after))
ORDER BY seq;

-- name: outcomes_among
SELECT seq, at_us, kind, key FROM journal WHERE execution_id = :execution_id AND seq < :cut
  AND key {IN (SELECT value FROM json_each(:keys))|= ANY(ARRAY(SELECT json_array_elements_text(:keys::JSON)))}
  AND (kind = 'step' OR kind = 'event' OR kind = 'resume' OR kind = 'child_started' OR kind = 'child' OR kind = 'published'
    OR kind = 'sent' OR kind = 'transcript')
ORDER BY seq;

-- name: set_kind
-- holds: execution=execution_id
UPDATE journal SET kind = :kind WHERE execution_id = :execution_id AND seq = :seq RETURNING seq;

-- name: make_fork
-- holds: execution=id
UPDATE executions SET forked_from = :forked_from, forked_at_step = :forked_at_step, kept_rows = :kept_rows,
  seed_id = :seed_id, keys_id = :keys_id, needs_protocol = :needs_protocol, key = COALESCE(:key, key), next_seq = :next_seq,
  attempt = :attempt, moved_at_us = {MAX|GREATEST}(moved_at_us, :at_us), created_number = :created_number
WHERE project_id = :project_id AND id = :id RETURNING moved_at_us;

-- name: set_keys
-- holds: execution=id
-- Push workers have keys of their own.
UPDATE executions SET keys_id = :keys_id, seed_id = :keys_id, needs_protocol = CASE WHEN (SELECT d.push FROM deployments d
  WHERE d.project_id = executions.project_id AND d.id = executions.deployment_id) = 1 THEN NULL ELSE :needs_protocol{::INTEGER} END
WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: keys_of
SELECT COALESCE(keys_id, id) FROM executions WHERE project_id = :project_id AND id = :id;

-- name: started_child_of
SELECT value FROM journal WHERE execution_id = :execution_id AND key = :key AND kind = 'child_started' AND ok = 1;

-- name: mark_retried
-- holds: execution=id
UPDATE executions SET retried_as = :retried_as WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: copy_journal
-- holds: execution=fork_id
INSERT INTO journal ({columns JournalRow})
SELECT :fork_id, seq, at_us, kind, attempt, key, name, fingerprint, ok, {= value}, started_at_us, tries, label, quiet
FROM journal j WHERE execution_id = :execution_id AND seq < :cut;

-- name: replace_value
-- holds: execution=execution_id
-- A given outcome, or the child that is asked for again.
UPDATE journal SET ok = 1, value = :value, name = CASE kind WHEN 'child' THEN 'completed' ELSE name END
WHERE execution_id = :execution_id AND seq = :seq RETURNING seq;

-- name: copy_waits
-- holds: execution=fork_id
-- The waits whose outcomes were copied, and answers that came before their questions.
INSERT INTO waits (execution_id, key, project_id, state, topic, match, match_names, match_hash, fingerprint, after_seq,
  event_seq, data, opened_at_us, expires_at_us, event_type, batch_id, must_name, answer_schema, closed_at_us)
SELECT :fork_id, key, project_id, state, topic, match, match_names, match_hash, fingerprint, after_seq, event_seq, data,
  opened_at_us, expires_at_us, event_type, batch_id, must_name, answer_schema, closed_at_us
FROM waits w WHERE w.execution_id = :execution_id
  AND (w.state = 'early' AND w.opened_at_us <= :cut_at_us OR (w.state = 'met' OR w.state = 'closed') AND EXISTS (SELECT 1 FROM journal j
    WHERE j.execution_id = :fork_id AND j.key = w.key AND (j.kind = 'event' OR j.kind = 'resume')));

-- name: copy_approvals
-- holds: execution=fork_id
-- Except those of answers that the fork has edited.
INSERT INTO approvals (execution_id, key, answered_at_us, project_id, answered_by, how, data)
SELECT :fork_id, key, answered_at_us, project_id, answered_by, how, data FROM approvals a
WHERE a.execution_id = :execution_id AND EXISTS (SELECT 1 FROM waits w WHERE w.execution_id = :fork_id AND w.key = a.key)
  AND NOT EXISTS (SELECT 1 FROM acts mine WHERE mine.execution_id = :fork_id AND mine.action = 'edit' AND mine.key = a.key);

-- name: copy_acts
-- holds: execution=fork_id
-- Except on the rows that the fork has edited.
INSERT INTO acts (execution_id, seq, project_id, at_us, action, key, acted_by, note)
SELECT :fork_id, seq, project_id, at_us, action, key, acted_by, note FROM acts
WHERE execution_id = :execution_id AND seq < :cut
  AND NOT EXISTS (SELECT 1 FROM acts mine WHERE mine.execution_id = :fork_id AND mine.seq = acts.seq);

-- name: copy_budget
-- holds: budget=fork_id
-- The spent amounts stay. Open reservations of a final source count as spent. The time from the source's end to the
-- fork does not count. Its topic is new, so `raises` begins at 0.
INSERT INTO budgets (execution_id, project_id, root_id, on_exceed, usd_micros_max, tokens_max, calls_max, seconds_max,
  usd_micros_spent, tokens_spent, calls_spent, opened_at_us)
SELECT :fork_id, project_id, :root_id, on_exceed, usd_micros_max, tokens_max, calls_max, seconds_max,
  usd_micros_spent + :is_final * usd_micros_reserved, tokens_spent + :is_final * tokens_reserved,
  calls_spent + :is_final * calls_reserved, :now_us{::BIGINT} - (COALESCE(paused_at_us, :ended_at_us) - opened_at_us)
FROM budgets WHERE execution_id = :execution_id;
