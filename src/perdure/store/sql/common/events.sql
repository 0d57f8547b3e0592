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
-- Both at once, where it is known how many there are.
INSERT INTO topics (project_id, topic, last_seq) VALUES (:project_id, :topic, :events)
ON CONFLICT (project_id, topic) DO UPDATE SET last_seq = topics.last_seq + excluded.last_seq RETURNING last_seq;

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
-- The newest event older than a moment: everything after it is what an execution of that age may take. A server says what
-- time it is before it has the topic: another one's event that is younger may have got a lower number, and is not passed over.
SELECT {seq|LEAST(seq, (SELECT MIN(n.seq) - 1 FROM events n WHERE n.project_id = :project_id AND n.topic = :topic
    AND n.seq > v.seq - 1000 AND n.seq < v.seq AND n.created_at_us >= :before_us AND n.created_at_us < :before_us + 60000000))}
FROM (SELECT seq FROM events WHERE project_id = :project_id AND topic = :topic AND created_at_us < :before_us
  ORDER BY seq DESC LIMIT 1) AS v;

-- name: newest_event
SELECT MAX(seq) FROM events WHERE project_id = :project_id AND topic = :topic;
