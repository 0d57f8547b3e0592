-- Event triggers.

-- name: find_trigger
-- holds: topic=topic
SELECT {columns StoredTrigger} FROM event_triggers WHERE project_id = :project_id AND topic = :topic AND workflow_id = :workflow_id {FOR UPDATE};

-- name: insert_trigger
-- holds: topic=topic
INSERT INTO event_triggers (project_id, {columns StoredTrigger}) VALUES (:project_id, {values StoredTrigger});

-- name: update_trigger
-- holds: topic=topic
UPDATE event_triggers SET batch_size = :batch_size, batch_timeout_seconds = :batch_timeout_seconds,
  queue_name = :queue_name, declared = :declared, updated_at_us = :updated_at_us
WHERE project_id = :project_id AND topic = :topic AND workflow_id = :workflow_id RETURNING id;

-- name: try_lock_trigger
-- holds: trigger=id
-- Locked for taking events. No row: another server has it at this moment, or it is gone.
SELECT {columns StoredTrigger} FROM event_triggers WHERE project_id = :project_id AND id = :id {FOR UPDATE SKIP LOCKED};

-- name: take_events
-- holds: trigger=id
UPDATE event_triggers SET taken_seq = :taken_seq WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: delete_trigger
-- holds: trigger=id
DELETE FROM event_triggers WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: declared_triggers
SELECT id, workflow_id, topic FROM event_triggers WHERE project_id = :project_id AND declared = 1 ORDER BY id;

-- name: count_triggers
SELECT COUNT(*) FROM event_triggers WHERE project_id = :project_id;

-- name: list_triggers
SELECT g.id, g.workflow_id, g.topic, g.batch_size, g.batch_timeout_seconds, g.queue_name, g.declared, g.taken_seq,
  g.created_at_us, g.updated_at_us, COALESCE(t.last_seq, g.taken_seq) - g.taken_seq AS waiting
FROM event_triggers g LEFT JOIN topics t ON t.project_id = g.project_id AND t.topic = g.topic
WHERE g.project_id = :project_id AND g.id < :before ORDER BY g.id DESC LIMIT :limit;

-- name: watched_topics
-- All triggers and, for those with untaken events, since when the first waits. Subselects, not a join: without
-- statistics PostgreSQL would read all topics for a few triggers.
SELECT g.project_id, g.id, g.topic, g.batch_size, g.batch_timeout_seconds,
  COALESCE((SELECT t.last_seq - g.taken_seq FROM topics t WHERE t.project_id = g.project_id AND t.topic = g.topic), 0),
  (SELECT e.created_at_us FROM events e WHERE e.project_id = g.project_id AND e.topic = g.topic AND e.seq > g.taken_seq
    ORDER BY e.seq LIMIT 1)
FROM event_triggers g;

-- name: event_sizes
SELECT seq, OCTET_LENGTH(data), created_at_us FROM events
WHERE project_id = :project_id AND topic = :topic AND seq > :after ORDER BY seq LIMIT :limit;

-- name: topic_end
SELECT last_seq FROM topics WHERE project_id = :project_id AND topic = :topic;
