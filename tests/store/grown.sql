-- A store after years of use, made by sets: finished executions with everything that belongs to them, and the open ones
-- at its newer end. `numbers` is a table of 0, 1, 2, …; the n-th execution has an id, times and neighbours of its own.

-- name: projects
-- picks: one project
INSERT INTO projects (id, name, created_at_us, current_deployment_id) VALUES ('p', 'default', 1, 'd');

-- name: deployments
-- picks: one deployment
INSERT INTO deployments (project_id, id, created_at_us, registered_at_us) VALUES ('p', 'd', 1, 1);

-- name: workflows
-- picks: five workflows
INSERT INTO workflows (project_id, deployment_id, id, queue_name, output_schema_name, run_timeout_seconds, wake_on_cancel)
SELECT 'p', 'd', 'workflow-' || n, NULL, NULL, NULL, 0 FROM numbers WHERE n < 5;

-- name: queues
-- picks: a queue with limits
INSERT INTO queues (project_id, name, concurrency_limit, total_limit) VALUES ('p', 'narrow', 200, 1000);

-- name: pauses
-- picks: a pause that covers none of the executions
INSERT INTO pauses (project_id, kind, name, concurrency_key, number, state, paused_at_us, paused_by)
VALUES ('p', 'queue', 'resting', '', 2, 'holding', :now_us, 'user');

-- name: workers
-- picks: ten workers
INSERT INTO workers (id, project_id, deployment_id, python, capacity, embedded, lease_until_us, registered_at_us)
SELECT 'worker-' || n, 'p', 'd', '3.11', 500, 0, :now_us{::BIGINT} + 12000000, :now_us FROM numbers WHERE n < 10;

-- name: push_workers
-- picks: what says that they are called, for all but one of which nothing was heard for long
INSERT INTO push_workers (id, project_id, url, state, refused, check_at_us)
SELECT 'worker-' || n, 'p', 'https://worker-' || n || '.example', CASE WHEN n = 9 THEN 'lapsed' ELSE 'online' END, 0, :now_us
FROM numbers WHERE n < 10;

-- name: ids
-- picks: what gives each number its id, with its time in front
INSERT INTO names (n, id, parent)
SELECT n, substr(t, 1, 8) || '-' || substr(t, 9) || :infix || h, substr(u, 1, 8) || '-' || substr(u, 9) || :infix || p FROM (
  SELECT n, {printf('%012x', n)|lpad(to_hex(n), 12, '0')} AS h, {printf('%012x', n - n % 20)|lpad(to_hex(n - n % 20), 12, '0')} AS p,
    {printf('%012x', :start_ms + n * 1000)|lpad(to_hex(:start_ms::BIGINT + n * 1000), 12, '0')} AS t,
    {printf('%012x', :start_ms + (n - n % 20) * 1000)|lpad(to_hex(:start_ms::BIGINT + (n - n % 20) * 1000), 12, '0')} AS u
  FROM numbers) AS hexes;

-- name: executions_finished
-- picks: the finished executions, a second apart
INSERT INTO executions (project_id, id, workflow_id, deployment_id, phase, payload, result, created_at_us, started_at_us,
  completed_at_us, assigned_to_worker, parent_execution_id, root_execution_id, step_key, queue_name, concurrency_key,
  batch_id, session_id, user_id, key, attempt, tags, next_seq, rank, ready_at_us, gate, wake_on_cancel, python, acked,
  report_number, claim_id, moved_at_us)
SELECT 'p', id, 'workflow-' || (n % 5), 'd', 'completed', :payload, :payload, at_us, at_us + 2000, at_us + 5000,
  'worker-' || (n % 10), CASE WHEN child THEN parent END, CASE WHEN child THEN parent END,
  CASE WHEN child THEN 'child-' || (n % 20) END,
  CASE WHEN n % 100 = 5 THEN 'narrow' ELSE 'workflow-' || (n % 5) END, CASE WHEN n % 100 = 5 THEN 'key-' || (n % 7) END,
  CASE WHEN n % 20 = 7 THEN 'batch-' || (n / 1000) END, CASE WHEN n % 10 = 8 THEN 'session-' || (n / 100) END,
  CASE WHEN n % 10 = 8 THEN 'user-' || (n / 1000) END, CASE WHEN n % 50 = 9 THEN 'key-' || n END, 1,
  CASE WHEN n % 50 = 10 THEN :payload{::BYTEA} END, 4, 1000000, at_us, CASE WHEN n % 100 = 5 THEN 1 ELSE 0 END, 0, '3.11', 1, 1,
  'claim', at_us + 5000
FROM (SELECT n, id, parent, n % 20 IN (1, 2, 3) AS child, :start_us{::BIGINT} + n * 1000000 AS at_us FROM names
  WHERE n < :executions) AS rows ORDER BY n;

-- name: journal_finished
-- picks: three rows for each finished execution
INSERT INTO journal (execution_id, seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries)
SELECT id, seq, :start_us{::BIGINT} + n * 1000000 + 2000 * seq,
  CASE seq WHEN 1 THEN 'claimed' WHEN 2 THEN 'step' ELSE 'completed' END, 1, CASE seq WHEN 2 THEN 'step-1' END,
  CASE seq WHEN 2 THEN 'step' END, NULL, 1, :payload, NULL, 1
FROM names, (SELECT 1 AS seq UNION ALL SELECT 2 UNION ALL SELECT 3) AS seqs WHERE n < :executions ORDER BY n, seq;

-- name: waits_finished
-- picks: a wait that was met, for one execution in ten
INSERT INTO waits (execution_id, key, project_id, state, topic, opened_at_us, after_seq, event_seq)
SELECT id, 'wait-1', 'p', 'met', 'topic-' || (n / 1000), 1, 0, n % 1000 / 10 + 1 FROM names
WHERE n % 10 = 6 AND n < :executions;

-- name: questions_finished
-- picks: a question for one execution in twenty-five, every second one answered, the others expired
INSERT INTO waits (execution_id, key, project_id, state, opened_at_us, data, expires_at_us, closed_at_us)
SELECT id, 'ask', 'p', CASE WHEN n % 50 = 14 THEN 'met' ELSE 'closed' END, :start_us{::BIGINT} + n * 1000000, :payload,
  :start_us{::BIGINT} + n * 1000000 + 3000, :start_us{::BIGINT} + n * 1000000 + 3000
FROM names WHERE n % 25 = 14 AND n < :executions;

-- name: approvals
-- picks: the answers
INSERT INTO approvals (execution_id, key, answered_at_us, project_id, answered_by, how, data)
SELECT id, 'ask', :start_us{::BIGINT} + n * 1000000 + 2000, 'p', 'ann', 'api', :payload
FROM names WHERE n % 50 = 14 AND n < :executions;

-- name: tags_finished
-- picks: two tags for one execution in fifty
INSERT INTO execution_tags (project_id, name, value, execution_id)
SELECT 'p', tag, 'value-' || (n / 5000), id FROM names, (SELECT 'shop' AS tag UNION ALL SELECT 'region') AS tags
WHERE n % 50 = 10 AND n < :executions;

-- name: terms_finished
-- picks: a term for each key
INSERT INTO search_terms (project_id, term, execution_id)
SELECT 'p', 'k:' || n, id FROM names WHERE n % 50 = 9 AND n < :executions;

-- name: search_fields
-- picks: a searchable field of each workflow
INSERT INTO search_fields (project_id, workflow_id, field, declared_at_us, place)
SELECT 'p', 'workflow-' || n, 'payload.id', 1, '~' FROM numbers WHERE n < 5;

-- name: logs_finished
-- picks: a line for one execution in twenty
INSERT INTO logs (execution_id, n, at_us, level, text)
SELECT id, 1, 1, 20, 'a line of a log' FROM names WHERE n % 20 = 11 AND n < :executions;

-- name: streams_finished
-- picks: three items of one execution in two hundred
INSERT INTO stream_items (execution_id, n, at_us, attempt, tries, key, kind, data, upto)
SELECT id, i.n, 1, 1, 1, 'model', 'token', :payload, i.n * 100
FROM names, (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) AS i
WHERE names.n % 200 = 11 AND names.n < :executions;

-- name: extras_finished
-- picks: what travelled with one execution in ten
INSERT INTO execution_extras (execution_id, otel_traceparent, otel_span_id, initial_state)
SELECT id, 'trace', 'span', :payload FROM names WHERE n % 10 = 1 AND n < :executions;

-- name: large_payloads
-- picks: a payload of its own for one finished execution in ten
INSERT INTO large_payloads (execution_id, payload) SELECT id, :payload FROM names WHERE n % 10 = 2 AND n < :executions;

-- name: topics
-- picks: a topic for every thousand executions
INSERT INTO topics (project_id, topic, last_seq) SELECT 'p', 'topic-' || n, 100 FROM numbers WHERE n <= :executions / 1000;

-- name: events
-- picks: a hundred events in each topic
INSERT INTO events (project_id, topic, seq, id, event_type, data, dedup_key, created_at_us)
SELECT 'p', 'topic-' || (n / 100), n % 100 + 1, 'event-' || n, CASE WHEN n % 10 = 7 THEN 'made' END, :payload,
  CASE WHEN n % 10 = 0 THEN 'dedup-' || n END, :start_us{::BIGINT} + n * 10000000
FROM numbers WHERE n < :executions / 10;

-- name: events_crowded
-- picks: many events of one topic, and none with the number that a test inserts
INSERT INTO events (project_id, topic, seq, id, event_type, data, dedup_key, created_at_us)
SELECT 'p', 'topic-3', n + 101, 'crowd-' || n, CASE WHEN n % 10 = 7 THEN 'made' END, :payload, 'crowd-' || n, :start_us{::BIGINT} + 5000000000 + n
FROM numbers WHERE n < 20000 AND n <> 899;

-- name: topic_crowded
-- picks: its last number
UPDATE topics SET last_seq = 20100 WHERE topic = 'topic-3';

-- name: event_fields
-- picks: the fields of the events, and of an older block of each topic
INSERT INTO event_fields (project_id, topic, part, seq, entries)
SELECT 'p', 'topic-' || (n / 100), part, n % 100 + 1, :payload FROM numbers, (SELECT 3 AS part UNION ALL SELECT 16) AS parts
WHERE n < :executions / 10 AND (part = 16 OR n % 100 = 0);

-- name: idempotency
-- picks: an answer for one execution in fifty
INSERT INTO idempotency (project_id, route, key, body_hash, answer, kept_since_us, executions)
SELECT 'p', 'start', 'key-' || n, 'hash', :payload, :start_us{::BIGINT} + n * 1000000, '["' || id || '"]'
FROM names WHERE n % 50 = 12 AND n < :executions;

-- name: executions_open
-- picks: the open executions, of every kind in turn: n % 10 says which
INSERT INTO executions (project_id, id, workflow_id, deployment_id, phase, payload, created_at_us, started_at_us,
  assigned_to_worker, queue_name, concurrency_key, attempt, due_at_us, timer_key, next_seq, rank, ready_at_us, gate,
  wake_on_cancel, python, acked, claim_id, cancelled_at_us, cancelled_by, moved_at_us, error)
SELECT 'p', id, 'workflow-' || (n % 5), 'd', phase, :payload, :start_us{::BIGINT} + n * 1000000, CASE WHEN phase = 'queued' THEN NULL ELSE :now_us{::BIGINT} END,
  CASE WHEN phase = 'queued' THEN NULL ELSE 'worker-' || (n / 10 % 10) END,
  CASE WHEN gate = 1 THEN 'narrow' ELSE 'workflow-' || (n % 5) END, CASE WHEN gate = 1 THEN 'key-' || (n / 10 % 10) END,
  CASE WHEN phase = 'queued' THEN 0 ELSE 1 END, CASE WHEN k IN (2, 7) THEN :now_us{::BIGINT} + n END,
  CASE WHEN k = 7 THEN 'timer' END, CASE WHEN phase = 'queued' THEN 1 ELSE 2 END, 1000000, :now_us{::BIGINT} + n, gate, 0,
  CASE WHEN phase = 'queued' THEN NULL ELSE '3.11' END, 0, CASE WHEN phase = 'queued' THEN NULL ELSE 'claim' END,
  CASE WHEN phase = 'cancelling' THEN :now_us{::BIGINT} END, CASE WHEN phase = 'cancelling' THEN 'user' END, :now_us,
  CASE WHEN phase = 'blocked' THEN 'the code does not match' END
FROM (SELECT n, id, n % 10 AS k, CASE WHEN n % 10 IN (1, 4) THEN 1 ELSE 0 END AS gate,
  CASE WHEN n % 10 < 3 THEN 'queued' WHEN n % 10 < 5 THEN 'running' WHEN n % 10 = 5 THEN 'cancelling'
    WHEN n % 10 = 9 THEN 'blocked' ELSE 'waiting' END AS phase
  FROM names WHERE n >= :executions AND n < :executions + :open) AS rows ORDER BY n;

-- name: journal_open
-- picks: the claim of what was claimed
INSERT INTO journal (execution_id, seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries)
SELECT id, 1, :now_us, 'claimed', 1, NULL, NULL, NULL, 1, :payload, NULL, 1 FROM names
WHERE n >= :executions AND n < :executions + :open AND n % 10 > 2;

-- name: waits_open
-- picks: what those wait for that have no timer
INSERT INTO waits (execution_id, key, project_id, state, topic, opened_at_us, after_seq, data, match_names, match_hash)
SELECT id, 'wait-1', 'p', 'open', CASE WHEN n % 10 = 6 THEN 'topic-' || (n % 500 / 10) END, :now_us, 0,
  CASE WHEN n % 10 = 8 THEN :payload{::BYTEA} END,
  CASE WHEN n % 10 = 6 AND n / 500 % 2 = 0 THEN '["lines","order"]' END,
  CASE WHEN n % 10 = 6 AND n / 500 % 2 = 0 THEN n END FROM names
WHERE n >= :executions AND n < :executions + :open AND n % 10 IN (6, 8);

-- name: waits_crowded
-- picks: some ten thousand waits of one topic
INSERT INTO waits (execution_id, key, project_id, state, topic, opened_at_us, after_seq, match_names, match_hash)
SELECT id, 'crowd', 'p', 'open', 'topic-3', :now_us, 0, '["order"]', n FROM names
WHERE n < :executions AND n < 20000 AND n % 10 < 6;

-- name: schedules
-- picks: fifty schedules
INSERT INTO schedules (project_id, id, workflow_id, key, cron, timezone, status, overlap, missed, missed_window_seconds,
  payload, declared, next_at_us, created_at_us, updated_at_us)
SELECT 'p', 'schedule-' || n, 'workflow-' || (n % 5), 'key-' || n, '* * * * *', 'UTC', 'active', 'queue', 'latest', 60, NULL, 0,
  :now_us{::BIGINT} + n, 1, 1 FROM numbers WHERE n < 50;

-- name: fires_finished
-- picks: a due time for one execution in a hundred
INSERT INTO schedule_fires (schedule_id, slot_us, by_hand, project_id, state, execution_id, fired_at_us)
SELECT 'schedule-' || (n / 100 % 50), n, '', 'p', 'done', id, :start_us{::BIGINT} + n * 1000000
FROM names WHERE n % 100 = 13 AND n < :executions;

-- name: fires_open
-- picks: a due time whose execution is open, for half of the schedules
INSERT INTO schedule_fires (schedule_id, slot_us, by_hand, project_id, state, execution_id, fired_at_us)
SELECT 'schedule-' || ((n - :executions) / 10), :now_us, '', 'p', 'started', id, :now_us
FROM names WHERE n % 10 = 3 AND n >= :executions AND n < :executions + 250;

-- name: fires_waiting
-- picks: a due time that waits for the one before it, where there is one or not
INSERT INTO schedule_fires (schedule_id, slot_us, by_hand, project_id, state, fired_at_us)
SELECT 'schedule-' || n, :now_us{::BIGINT} + 1, '', 'p', 'waiting', :now_us FROM numbers WHERE n < 30;

-- name: definitions
-- picks: ten agents
INSERT INTO definitions (project_id, kind, deployment_id, id, value, created_at_us, updated_at_us)
SELECT 'p', 'agent', 'd', 'agent-' || n, :payload, 1, 1 FROM numbers WHERE n < 10;

-- name: conversations
-- picks: a conversation for every thousand executions
INSERT INTO conversations (project_id, id, last_id) SELECT 'p', 'chat-' || n, 100 FROM numbers WHERE n <= :executions / 1000;

-- name: conversation_messages
-- picks: a hundred messages in each conversation
INSERT INTO conversation_messages (project_id, conversation_id, agent_id, id, role, content, created_at_us)
SELECT 'p', 'chat-' || (n / 100), 'agent-3', n % 100 + 1, 'user', :payload, 1 FROM numbers WHERE n < :executions / 10;

-- name: slack_apps
-- picks: ten apps
INSERT INTO slack_apps (project_id, api_app_id, bound_at_us) SELECT 'p', 'app-' || n, 1 FROM numbers WHERE n < 10;

-- name: acts
-- picks: an act upon one execution in a hundred
INSERT INTO acts (execution_id, seq, project_id, at_us, action, key, acted_by, note)
SELECT id, 2, 'p', :now_us{::BIGINT} - (:executions - n) * 1000000, 'complete', 'step-1', 'user', NULL
FROM names WHERE n % 100 = 14 AND n < :executions ORDER BY n;

-- name: pending_calls
-- picks: a step that runs for long, of each open execution
INSERT INTO pending_calls (execution_id, key, attempt, kind, name, since_us, due_us, tries)
SELECT id, 'step-2', 1, 'step', 'slow', :now_us, NULL, 1 FROM names
WHERE n >= :executions AND n < :executions + :open ORDER BY n;

-- name: traces
-- picks: a trace for one execution in a hundred, half of them of no execution that anybody knows
INSERT INTO traces (project_id, trace_id, root_span_id, root_span_type, root_span_name, rooted, started_at_us, ended_at_us,
  sorted_at_us, failed, spans, of_execution, written_at_us)
SELECT 'p', REPLACE(id, '-', ''), 'span-1', 'workflow', 'workflow.' || (n % 5), 1, at_us, at_us + 5000, at_us + 5000, 0, 2,
  CASE WHEN n % 200 = 13 THEN 0 ELSE 1 END, at_us
FROM (SELECT n, id, :start_us{::BIGINT} + n * 1000000 AS at_us FROM names
  WHERE n % 100 = 13 AND n < :executions) AS rows ORDER BY n;

-- name: spans
-- picks: two spans in each trace
INSERT INTO spans (project_id, trace_id, span_id, parent_span_id, name, span_type, failed, started_at_us, ended_at_us, body)
SELECT 'p', REPLACE(id, '-', ''), 'span-' || k, CASE k WHEN 2 THEN 'span-1' END, 'a span', 'step', 0,
  :start_us{::BIGINT} + n * 1000000 + k, :start_us{::BIGINT} + n * 1000000 + 5000, :payload
FROM names, (SELECT 1 AS k UNION ALL SELECT 2) AS ks WHERE n % 100 = 13 AND n < :executions ORDER BY n, k;

-- name: memories
-- picks: what is remembered of each session
INSERT INTO session_memory (project_id, session_id, summary, messages, version, written_at_us)
SELECT 'p', 'session-' || n, NULL, :payload, 3, :start_us{::BIGINT} + n * 100000000 FROM numbers
WHERE n < :executions / 100;

-- name: exports
-- picks: what was sent of the last thousand
INSERT INTO trace_exports (project_id, execution_id, ended_at_us, claimed_until_us, sent)
SELECT 'p', id, :start_us{::BIGINT} + n * 1000000 + 5000, 1, CASE WHEN n % 100 = 7 THEN 0 ELSE 1 END FROM names
WHERE n < :executions AND n >= :executions - 1000;

-- name: export_cursor
-- picks: how far that is
INSERT INTO export_cursors (project_id, ended_at_us, ended_id, looked_at_us, looked_id)
VALUES ('p', :now_us{::BIGINT} - 10000000, '', :now_us{::BIGINT} - 10000000, '');

-- name: event_triggers
-- picks: ten triggers
INSERT INTO event_triggers (project_id, id, workflow_id, topic, batch_size, batch_timeout_seconds, queue_name, declared,
  taken_seq, created_at_us, updated_at_us)
SELECT 'p', 'trigger-' || n, 'workflow-' || n, 'topic-' || n, 10, 60, NULL, 0, 90, 1, 1 FROM numbers WHERE n < 10;

-- name: deliveries_finished
-- picks: a message to a webhook for one execution in twenty
INSERT INTO deliveries (execution_id, webhook_id, project_id, url, host, state, tries, created_at_us, tried_at_us, status, answer)
SELECT id, 'webhook-' || (n % 3), 'p', 'https://example.com/', 'example.com', 'delivered', 1,
  :start_us{::BIGINT} + n * 1000000, 1, 200, 'ok' FROM names WHERE n % 20 = 3 AND n < :executions;

-- name: deliveries_pending
-- picks: a few that are to be sent
INSERT INTO deliveries (execution_id, webhook_id, project_id, url, host, state, tries, next_at_us, created_at_us)
SELECT id, '', 'p', 'https://example.com/', 'example.com', 'pending', 0, :now_us{::BIGINT}, :now_us FROM names
WHERE n < 1000 AND n % 50 = 4;

-- name: webhooks
-- picks: a few of them
INSERT INTO webhooks (project_id, id, url, host, created_at_us)
SELECT 'p', 'webhook-' || n, 'https://example.com/' || n, 'example.com', 1 FROM numbers WHERE n < 3;

-- name: transcripts
-- picks: one for each session that is remembered
INSERT INTO transcripts (project_id, session_id, version, turns, summarized, dropped, written_at_us)
SELECT 'p', 'session-' || n, 10, 5, 4, 0, :start_us{::BIGINT} + n * 100000000 FROM numbers
WHERE n < :executions / 100;

-- name: transcript_entries
-- picks: ten entries in each of them, the sixth a summary
INSERT INTO transcript_entries (project_id, session_id, seq, hash, summary_of)
SELECT 'p', 'session-' || (n / 10), n % 10 + 1, CAST('hash-' || n AS {BLOB|BYTEA}), CASE n % 10 WHEN 5 THEN 4 END FROM numbers
WHERE n < :executions / 10;

-- name: messages
-- picks: what they refer to
INSERT INTO messages (project_id, hash, content, uses)
SELECT 'p', CAST('hash-' || n AS {BLOB|BYTEA}), :payload, 1 FROM numbers WHERE n < :executions / 10;

-- name: turns
-- picks: what has its turn, what waits for it and what reads, of a few sessions
INSERT INTO turns (execution_id, session_id, project_id, state, n, deliver, taken_by, read_version)
SELECT id, 'session-' || (n / 4), 'p', CASE n % 4 WHEN 0 THEN 'open' WHEN 1 THEN 'waiting' WHEN 2 THEN 'taken' ELSE 'reading' END,
  n % 4, 1, CASE n % 4 WHEN 2 THEN 'taker' END, 10 FROM names WHERE n >= 80 AND n < 480;

-- name: budgets
-- picks: a budget for whatever has children, and for what runs
INSERT INTO budgets (execution_id, project_id, root_id, on_exceed, usd_micros_max, tokens_reserved, opened_at_us)
SELECT id, 'p', id, 'ask', 1000000, 100, :now_us FROM names
WHERE (n % 20 = 0 AND n < :executions) OR (n % 10 = 3 AND n >= :executions AND n < :executions + :open);

-- name: shared_budgets
-- picks: one for each session and day
INSERT INTO shared_budgets (project_id, name, id, per, period, on_exceed, calls_max)
VALUES ('p', 'daily', 'shared-1', 'session', 'day', 'ask', 1000);

-- name: balances
-- picks: those of its sessions
INSERT INTO budgets (execution_id, project_id, root_id, on_exceed, opened_at_us, key, used_at_us, paused_at_us)
SELECT '00000000-' || n, 'p', 'shared-1', 'ask', :now_us{::BIGINT} - n, 'session-' || n, :now_us{::BIGINT} - n,
  CASE n % 10 WHEN 0 THEN :now_us END
FROM numbers WHERE n < :executions / 10;

-- name: reservations
-- picks: two calls of each of these, settled once it has ended
INSERT INTO reservations (execution_id, id, budget_id, project_id, attempt, usd_micros, tokens, calls, settled, reserved_at_us)
SELECT id, 'call-' || k, id, 'p', 1, 0, 10, 0, CASE WHEN n < :executions THEN 1 ELSE 0 END, :now_us
FROM names, (SELECT 1 AS k UNION ALL SELECT 2) AS ks
WHERE (n % 20 = 0 AND n < :executions) OR (n % 10 = 3 AND n >= :executions AND n < :executions + :open) ORDER BY n, k;

-- name: bulk_jobs
-- picks: completed ones, a stopped one, and one that runs
INSERT INTO bulk_jobs (project_id, id, action, filters, options, started_by, state, newest, place, total, at_least, done,
  refused, later, worked_us, created_at_us, moved_at_us)
SELECT 'p', 'job-' || n, 'cancel', :payload, :payload, 'text', CASE n WHEN 3 THEN 'running' WHEN 4 THEN 'stopped' ELSE 'completed' END,
  '~', '', 0, 0, 0, 0, 0, 1, 1, 1 FROM numbers WHERE n < 50;

-- name: bulk_items
-- picks: what they did, of all finished executions
INSERT INTO bulk_items (job_id, execution_id, state, reason, at_us)
SELECT 'job-' || (n % 10), id, CASE WHEN n % 100 = 3 THEN 'later' WHEN n % 100 = 13 THEN 'refused' ELSE 'done' END, 'text', 1
FROM names WHERE n < :executions;

-- name: ended_counts
-- picks: the ends of each workflow by hour, and by quarter and minute of the newest days
INSERT INTO ended_counts (project_id, step_us, at_us, workflow_id, deployment_id, queue_name, phase, took, n)
SELECT 'p', step_us, (:start_us{::BIGINT} + n / 5 * step_us) / step_us * step_us, 'workflow-' || (n % 5), 'd', '', 'completed', 46, step_us / 5000000
FROM numbers, (SELECT 3600000000{::BIGINT} AS step_us UNION ALL SELECT 900000000 UNION ALL SELECT 60000000) AS steps
WHERE n < {MIN|LEAST}(:executions{::BIGINT} * 5000000 / step_us, 20000);

-- name: ended_folds
-- picks: the one row: the newest ten ends are not counted yet
INSERT INTO ended_folds (id, folded_to_us, settled_to_us, deletions)
VALUES (1, :start_us{::BIGINT} + (:executions{::BIGINT} - 5) * 1000000, :start_us, 0);
