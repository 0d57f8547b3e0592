-- Streams of executions: emitted items, apart from the journals.

-- name: last_stream_item
SELECT n, upto FROM stream_items WHERE execution_id = :execution_id ORDER BY n DESC LIMIT 1;

-- name: insert_stream_item
-- holds: execution=execution_id
-- bulk: n at_us attempt tries upto; bytes data
INSERT INTO stream_items (execution_id, n, at_us, attempt, tries, key, kind, data, upto)
VALUES (:execution_id, :n, :at_us, :attempt, :tries, :key, :kind, :data, :upto);

-- name: trim_stream
-- holds: execution=execution_id
DELETE FROM stream_items WHERE execution_id = :execution_id AND (n <= :n OR upto <= :upto);

-- name: read_stream_items
SELECT n, at_us, attempt, tries, key, kind, data FROM stream_items
WHERE execution_id = :execution_id AND n > :after ORDER BY n LIMIT :limit;

-- name: stream_item_times
SELECT at_us FROM stream_items WHERE execution_id = :execution_id AND n > :after ORDER BY n LIMIT :limit;

-- name: stream_state
SELECT phase, error, root_execution_id, (SELECT n FROM stream_items WHERE execution_id = :id ORDER BY n DESC LIMIT 1) FROM executions
WHERE project_id = :project_id AND id = :id;

-- name: stream_family
-- The newest descendants of a root, and the progress of each stream.
SELECT id, parent_execution_id, step_key, (SELECT n FROM stream_items WHERE execution_id = executions.id ORDER BY n DESC LIMIT 1)
FROM executions WHERE project_id = :project_id AND root_execution_id = :root_id ORDER BY id DESC LIMIT :limit;

-- name: delete_stream
-- holds: execution=id
DELETE FROM stream_items WHERE execution_id = :id;
