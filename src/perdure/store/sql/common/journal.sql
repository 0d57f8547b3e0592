-- The journal.

-- name: insert_journal
-- holds: execution=execution_id
-- late: journal
-- bulk: seq at_us attempt ok started_at_us tries; bytes value
INSERT INTO journal (execution_id, seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries)
VALUES (:execution_id, :seq, :at_us, :kind, :attempt, :key, :name, :fingerprint, :ok, :value, :started_at_us, :tries);

-- name: read_journal
SELECT seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries FROM journal
WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: journal_sizes
-- Sizes of the values that read_journal would answer with.
SELECT seq, OCTET_LENGTH(value) FROM journal
WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: take_back_step
-- holds: execution=execution_id
UPDATE journal SET kind = 'step_failed'
WHERE execution_id = :execution_id AND key = :key AND kind = 'step' AND ok = 0 RETURNING seq;
