-- Topics and events.

-- name: lock_topic
-- holds: topic=topic
-- effect: none
-- The common lock of publishing and of registering a wait (I5), and the topic's sequence.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, 0)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq RETURNING last_seq;

-- name: share_topic
-- shares: topic=topic
-- Verbs of a transaction that open waits do not keep each other out. Between connections the lock is exclusive.
SELECT last_seq FROM topics WHERE project_id = :project_id AND topic = :topic {FOR UPDATE};

-- name: make_topic
-- shares: topic=topic
-- effect: none
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, 0)
ON CONFLICT (project_id, topic) DO NOTHING;

-- name: advance_topic
-- holds: topic=topic
UPDATE topics SET last_seq = last_seq + :events
WHERE project_id = :project_id AND topic = :topic RETURNING last_seq;

-- name: take_numbers
-- holds: topic=topic
-- Both at once, if the number of events is known.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, :events)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq + excluded.last_seq
RETURNING last_seq;

-- name: insert_event
-- holds: topic=topic
-- bulk: sequence_id created_at_us; bytes data
INSERT INTO events (project_id, topic, seq, id, event_type, data, dedup_key, created_at_us{, created_number|})
VALUES (:project_id, :topic, :sequence_id, :id, :event_type, :data, :dedup_key, :created_at_us{, created_number()|});

-- name: find_event
SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND dedup_key = :dedup_key;

-- name: read_events
SELECT id, seq AS sequence_id, topic, data, created_at_us, event_type FROM events
WHERE project_id = :project_id AND topic = :topic AND seq > :after ORDER BY seq LIMIT :limit;

-- text: is_before
e.created_number < (SELECT x.created_number FROM executions x WHERE x.project_id = :project_id AND x.id = :execution_id)

-- text: first_seq
(SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic ORDER BY seq LIMIT 1)

-- text: last_seq
(SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic ORDER BY seq DESC LIMIT 1)

-- name: last_event_before
-- The newest event before an execution started; later events are for that execution. Numbers ascend with time, so this
-- halves the topic. A join with the events would read the whole topic on PostgreSQL, and so would MIN and MAX before 16.
SELECT low FROM (WITH RECURSIVE rows (low, size) AS (
  SELECT {= first_seq} - 1, {= last_seq} - {= first_seq} + 2
  UNION ALL SELECT rows.low + COALESCE((SELECT CASE WHEN {= is_before} THEN rows.size / 2 ELSE 0 END FROM events e
      WHERE e.project_id = :project_id AND e.topic = :topic AND e.seq = rows.low + rows.size / 2), 0), rows.size - rows.size / 2
  FROM rows WHERE rows.size > 1)
SELECT low FROM rows WHERE size = 1) AS found;

-- text: listed_topics
FROM topics t LEFT JOIN events e ON e.project_id = t.project_id AND e.topic = t.topic AND e.seq = t.last_seq
WHERE t.project_id = :project_id AND t.topic >= :first AND t.topic < :beyond AND t.topic <> :after_topic
  AND {= is_own_topic}
ORDER BY t.topic LIMIT :limit

-- name: topic_sizes
SELECT COALESCE(OCTET_LENGTH(e.data), 0) {= listed_topics};

-- name: list_topics
SELECT t.topic, t.last_seq AS last_sequence_id,
  (SELECT f.seq FROM events f WHERE f.project_id = t.project_id AND f.topic = t.topic ORDER BY f.seq LIMIT 1) AS first_sequence_id,
  e.created_at_us AS last_event_at_us, e.event_type AS last_event_type {= listed_topics};

-- name: newest_event
SELECT {= last_seq};

-- name: insert_event_fields
-- holds: topic=topic
-- late: event_fields
-- bulk: part seq; bytes entries
INSERT INTO event_fields (project_id, topic, part, seq, entries) VALUES (:project_id, :topic, :part, :seq, :entries);

-- name: new_event_fields
-- holds: topic=topic
SELECT seq, entries FROM event_fields WHERE project_id = :project_id AND topic = :topic AND part = 16 AND seq <= :upto
ORDER BY seq;

-- name: delete_new_event_fields
-- holds: topic=topic
DELETE FROM event_fields WHERE project_id = :project_id AND topic = :topic AND part = 16 AND seq <= :upto;

-- name: find_event_fields
-- Rows that have a hash or, in parts for any value, one of two others.
SELECT seq, entries FROM event_fields
WHERE project_id = :project_id AND topic = :topic AND part IN (:part, 16, 17) AND seq > :after
  AND ({INSTR(entries, :hash)|POSITION(:hash::BYTEA IN entries)} > 0
    OR part > 15 AND ({INSTR(entries, :unknown)|POSITION(:unknown::BYTEA IN entries)} > 0
      OR {INSTR(entries, :long)|POSITION(:long::BYTEA IN entries)} > 0))
ORDER BY seq LIMIT :limit;
