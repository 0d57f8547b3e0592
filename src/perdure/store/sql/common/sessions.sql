-- Sessions: what an agent remembers of one.

-- name: read_memory
SELECT summary, messages, version FROM session_memory WHERE project_id = :project_id AND session_id = :session_id;

-- name: put_memory
-- holds: session=session_id
INSERT INTO session_memory (project_id, session_id, summary, messages, version, written_at_us)
VALUES (:project_id, :session_id, :summary, :messages, 1, :now_us)
ON CONFLICT (project_id, session_id) DO UPDATE SET summary = excluded.summary, messages = excluded.messages,
  version = session_memory.version + 1, written_at_us = excluded.written_at_us
RETURNING version;

-- name: insert_memory
-- holds: session=session_id
-- For whoever has seen that there is none yet.
INSERT INTO session_memory (project_id, session_id, summary, messages, version, written_at_us)
VALUES (:project_id, :session_id, :summary, :messages, 1, :now_us)
ON CONFLICT (project_id, session_id) DO NOTHING RETURNING version;

-- name: update_memory
-- holds: session=session_id
-- For whoever has seen this version.
UPDATE session_memory SET summary = :summary, messages = :messages, version = version + 1, written_at_us = :now_us
WHERE project_id = :project_id AND session_id = :session_id AND version = :version RETURNING version;

-- name: delete_memory
-- holds: session=session_id
DELETE FROM session_memory WHERE project_id = :project_id AND session_id = :session_id;

-- name: prune_memory
-- picks: memory that nobody has written to for long
DELETE FROM session_memory WHERE (project_id, session_id) IN (
  SELECT project_id, session_id FROM session_memory WHERE written_at_us < :before_us LIMIT :limit) RETURNING session_id;
