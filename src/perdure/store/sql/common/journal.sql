-- The journal.

-- name: insert_journal
-- holds: execution=execution_id
-- late: journal
-- bulk: seq at_us attempt ok started_at_us tries quiet; bytes value
INSERT INTO journal ({columns JournalRow}) VALUES ({values JournalRow});

-- name: read_journal
SELECT {= row} FROM journal j
WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: journal_sizes
-- Sizes of the values that read_journal would answer with.
SELECT seq, {= value_size} AS size FROM journal j
WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: short_sizes
-- For many executions at once: how many rows each has within a range, and the sizes of their values.
SELECT execution_id, COUNT(*), CAST(SUM({= value_size}) AS BIGINT) FROM journal j
WHERE execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND seq > :after AND seq <= :last GROUP BY execution_id;

-- name: read_short
SELECT execution_id, {= row}, label, quiet FROM journal j
WHERE execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND seq > :after AND seq <= :last ORDER BY execution_id, seq;

-- name: take_back_step
-- holds: execution=execution_id
UPDATE journal SET kind = 'step_failed'
WHERE execution_id = :execution_id AND key = :key AND kind = 'step' AND ok = 0 RETURNING seq;

-- name: drop_step
-- holds: execution=execution_id
UPDATE journal SET kind = 'ignored' WHERE execution_id = :execution_id AND key = :key AND kind = 'step' RETURNING seq;
