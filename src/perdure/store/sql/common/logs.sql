-- Logs.

-- name: last_log
SELECT n FROM logs WHERE execution_id = :execution_id ORDER BY n DESC LIMIT 1;

-- name: insert_log
-- holds: execution=execution_id
INSERT INTO logs (execution_id, n, at_us, level, text) VALUES (:execution_id, :n, :at_us, :level, :text);

-- name: trim_logs
-- holds: execution=execution_id
DELETE FROM logs WHERE execution_id = :execution_id AND n <= :upto;

-- name: read_logs
SELECT n, at_us, level, text FROM logs WHERE execution_id = :execution_id AND n > :after ORDER BY n LIMIT :limit;
