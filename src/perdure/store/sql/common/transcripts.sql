-- Transcripts of sessions: entries in order, each a reference to a message that is stored once.

-- name: lock_transcript
-- holds: session=session_id
SELECT version, turns, summarized, dropped, begun_at_us FROM transcripts WHERE project_id = :project_id AND session_id = :session_id {FOR UPDATE};

-- name: try_lock_transcript
-- picks: a transcript, unless it is locked
SELECT version FROM transcripts WHERE project_id = :project_id AND session_id = :session_id {FOR UPDATE SKIP LOCKED};

-- name: advance_transcript
-- holds: session=session_id
-- With a version, only if it is the newest.
INSERT INTO transcripts (project_id, session_id, version, turns, summarized, dropped, written_at_us, begun_at_us)
VALUES (:project_id, :session_id, :entries, 0, :summarized, 0, :now_us, :now_us)
ON CONFLICT (project_id, session_id) DO UPDATE SET version = transcripts.version + :entries,
  summarized = {MAX|GREATEST}(transcripts.summarized, excluded.summarized), written_at_us = excluded.written_at_us
  WHERE :expected{::BIGINT} IS NULL OR transcripts.version = :expected
RETURNING version;

-- name: use_message
-- holds: message=hash
INSERT INTO messages (project_id, hash, content, uses) VALUES (:project_id, :hash, :content, :uses)
ON CONFLICT (project_id, hash) DO UPDATE SET uses = messages.uses + excluded.uses;

-- name: release_message
-- holds: message=hash
UPDATE messages SET uses = uses - :uses WHERE project_id = :project_id AND hash = :hash;

-- name: drop_unused_message
-- holds: message=hash
DELETE FROM messages WHERE project_id = :project_id AND hash = :hash AND uses <= 0;

-- name: insert_entry
-- holds: session=session_id
INSERT INTO transcript_entries (project_id, session_id, seq, hash, summary_of)
VALUES (:project_id, :session_id, :seq, :hash, :summary_of);

-- name: read_version
SELECT version, dropped FROM transcripts WHERE project_id = :project_id AND session_id = :session_id;

-- name: newest_summary
SELECT summary_of FROM transcript_entries
WHERE project_id = :project_id AND session_id = :session_id AND seq <= :version AND summary_of IS NOT NULL
ORDER BY seq DESC LIMIT 1;

-- name: entry_sizes
SELECT (SELECT OCTET_LENGTH(m.content) FROM messages m WHERE m.project_id = e.project_id AND m.hash = e.hash LIMIT 1)
FROM transcript_entries e
WHERE e.project_id = :project_id AND e.session_id = :session_id AND e.seq > :after AND e.seq <= :version
ORDER BY e.seq LIMIT :limit;

-- name: read_entries
-- Each message by its key: PostgreSQL might turn a join into a scan of all messages.
SELECT e.seq, (SELECT m.content FROM messages m WHERE m.project_id = e.project_id AND m.hash = e.hash LIMIT 1) AS message, e.summary_of
FROM transcript_entries e
WHERE e.project_id = :project_id AND e.session_id = :session_id AND e.seq > :after AND e.seq <= :version
ORDER BY e.seq LIMIT :limit;

-- name: drop_entries
-- holds: session=session_id
-- From the first on, so the rest has no gap.
DELETE FROM transcript_entries WHERE (project_id, session_id, seq) IN (
  SELECT project_id, session_id, seq FROM transcript_entries
  WHERE project_id = :project_id AND session_id = :session_id AND seq <= :upto ORDER BY seq LIMIT :limit)
RETURNING hash;

-- name: note_dropped
-- holds: session=session_id
UPDATE transcripts SET dropped = :dropped WHERE project_id = :project_id AND session_id = :session_id;

-- name: delete_transcript
-- holds: session=session_id
DELETE FROM transcripts WHERE project_id = :project_id AND session_id = :session_id;

-- name: old_transcripts
-- Transcripts without a recent write and without an open turn.
SELECT project_id, session_id FROM transcripts WHERE written_at_us < :before_us
  AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.project_id = transcripts.project_id AND t.session_id = transcripts.session_id)
ORDER BY written_at_us LIMIT :limit;
