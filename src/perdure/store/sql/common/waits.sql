-- Waits.

-- name: read_wait
SELECT state, topic, after_seq, event_seq, data, expires_at_us, event_type, batch_id, opened_at_us, must_name, answer_schema
FROM waits
WHERE execution_id = :execution_id AND key = :key;

-- name: read_answer
SELECT value FROM journal WHERE execution_id = :execution_id AND key = :key AND kind = 'resume';

-- name: count_early
SELECT COUNT(*) FROM waits WHERE execution_id = :execution_id AND state = 'early';

-- name: insert_wait
-- holds: execution=execution_id
-- bulk: match_hash after_seq now_us expires_at_us; bytes match data answer_schema
INSERT INTO waits (execution_id, key, project_id, state, topic, match, match_names, match_hash, fingerprint, after_seq, data,
  opened_at_us, expires_at_us, answer_schema)
VALUES (:execution_id, :key, :project_id, :state, :topic, :match, :match_names, :match_hash, :fingerprint, :after_seq, :data,
  :now_us, :expires_at_us, :answer_schema);

-- name: ask_anew
-- holds: execution=execution_id
-- An answer came before the question, or the code's question changed: an answer must name it.
UPDATE waits SET state = 'open', topic = :topic, match = :match, match_names = :match_names, match_hash = :match_hash,
  fingerprint = :fingerprint, after_seq = :after_seq, data = :data, opened_at_us = :now_us, expires_at_us = :expires_at_us,
  answer_schema = :answer_schema, must_name = 1, closed_at_us = NULL
WHERE execution_id = :execution_id AND key = :key AND state <> 'met' RETURNING key;

-- name: reopen_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'open', expires_at_us = :expires_at_us, closed_at_us = NULL
WHERE execution_id = :execution_id AND key = :key AND state = 'closed' RETURNING key;

-- name: set_answer_schema
-- holds: execution=execution_id
-- The code that asks may have changed since it asked.
UPDATE waits SET answer_schema = :answer_schema
WHERE execution_id = :execution_id AND key = :key AND answer_schema {IS NOT|IS DISTINCT FROM} :answer_schema;

-- name: meet_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'met', event_seq = :event_seq, data = COALESCE(:data, data)
WHERE execution_id = :execution_id AND key = :key AND state IN ('open', 'early') RETURNING key;

-- name: close_wait
-- holds: execution=execution_id
UPDATE waits SET state = 'closed', closed_at_us = :now_us
WHERE execution_id = :execution_id AND key = :key AND state = 'open' RETURNING key;

-- name: close_waits
-- holds: execution=execution_id
-- An ended execution waits for nothing, so publishing need not look at it.
UPDATE waits SET state = 'closed', closed_at_us = :now_us WHERE execution_id = :execution_id AND state = 'open';

-- name: locked_waits
-- How many open waits of an execution are locked elsewhere. It locks the rest.
SELECT COUNT(*) - (SELECT COUNT(*) FROM (
  SELECT key FROM waits WHERE execution_id = :execution_id AND state = 'open' {FOR UPDATE SKIP LOCKED}) AS free)
FROM waits WHERE execution_id = :execution_id AND state = 'open';

-- name: open_waits
SELECT key FROM waits WHERE execution_id = :execution_id AND state = 'open' ORDER BY key;

-- name: list_waits
SELECT {columns PendingWait} FROM waits WHERE execution_id = :execution_id AND state = 'open'
ORDER BY opened_at_us, key;

-- name: taken_events
SELECT event_seq FROM waits WHERE execution_id = :execution_id AND topic = :topic AND event_seq IS NOT NULL;

-- text: of_topic
project_id = :project_id AND topic = :topic AND state = 'open'

-- text: waiting
execution_id, key, match, after_seq, event_type, fingerprint, opened_at_us, match_names, match_hash

-- name: waiting_for
-- The waits that are compared with each event, and one row for each set of names that other waits match.
SELECT {= waiting} FROM (
  SELECT {= waiting} FROM waits WHERE {= of_topic} AND match_names IS NULL
  UNION ALL SELECT '', '', NULL, NULL, NULL, NULL, 0, names, NULL FROM (WITH RECURSIVE rows (names) AS (
    SELECT (SELECT match_names FROM waits WHERE {= of_topic} AND match_names IS NOT NULL ORDER BY match_names LIMIT 1)
    UNION ALL SELECT (SELECT match_names FROM waits WHERE {= of_topic} AND match_names > rows.names
      ORDER BY match_names LIMIT 1) FROM rows
    WHERE rows.names IS NOT NULL) SELECT names FROM rows WHERE names IS NOT NULL) AS rows) AS found;

-- name: waits_matching
SELECT {= waiting} FROM waits WHERE {= of_topic} AND match_names = :match_names AND match_hash = :match_hash;
