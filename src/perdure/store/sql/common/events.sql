-- Topics and events.

-- name: lock_topic
-- holds: topic=topic
-- effect: none
-- The common lock of publishing and of registering a wait (I5), and the topic's sequence.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, 0)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq RETURNING last_seq;

-- name: advance_topic
-- holds: topic=topic
UPDATE topics SET last_seq = last_seq + :events WHERE project_id = :project_id AND topic = :topic RETURNING last_seq;

-- name: take_numbers
-- holds: topic=topic
-- Both at once, if the number of events is known.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, :events)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq + excluded.last_seq RETURNING last_seq;

-- name: insert_event
-- holds: topic=topic
INSERT INTO events (project_id, topic, seq, id, event_type, data, dedup_key, created_at_us{, created_number|})
VALUES (:project_id, :topic, :sequence_id, :id, :event_type, :data, :dedup_key, :created_at_us{, created_number()|});

-- name: find_event
SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND dedup_key = :dedup_key;

-- name: read_events
SELECT id, seq AS sequence_id, topic, data, created_at_us, event_type FROM events
WHERE project_id = :project_id AND topic = :topic AND seq > :after ORDER BY seq LIMIT :limit;

-- name: last_event_before
-- The newest event before an execution started; later events are for that execution.
SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND CASE
  WHEN created_number IS NULL
    OR (SELECT x.created_number FROM executions x WHERE x.project_id = :project_id AND x.id = :execution_id) IS NULL
  THEN created_at_us < (SELECT x.created_at_us FROM executions x WHERE x.project_id = :project_id AND x.id = :execution_id)
  ELSE created_number < (SELECT x.created_number FROM executions x WHERE x.project_id = :project_id AND x.id = :execution_id)
  END
ORDER BY seq DESC LIMIT 1;

-- text: listed_topics
FROM topics t LEFT JOIN events e ON e.project_id = t.project_id AND e.topic = t.topic AND e.seq = t.last_seq
WHERE t.project_id = :project_id AND t.topic >= :first AND t.topic < :beyond AND t.topic <> :after_topic
ORDER BY t.topic LIMIT :limit

-- name: topic_sizes
SELECT COALESCE(OCTET_LENGTH(e.data), 0) {= listed_topics};

-- name: list_topics
SELECT t.topic, t.last_seq AS last_sequence_id,
  (SELECT MIN(f.seq) FROM events f WHERE f.project_id = t.project_id AND f.topic = t.topic) AS first_sequence_id,
  e.created_at_us AS last_event_at_us, e.event_type AS last_event_type {= listed_topics};

-- name: newest_event
SELECT MAX(seq) FROM events WHERE project_id = :project_id AND topic = :topic;
