-- What only SQLite can say, each with its reason.

-- name: integrity
-- SQLite's own check of its file; PostgreSQL has no such statement.
PRAGMA integrity_check(10);

-- name: incremental_vacuum
-- The pages of deleted rows go back to the file system in small steps.
PRAGMA incremental_vacuum(2000);

-- name: lock_projects
-- There is one writer: nobody else makes the first project meanwhile.
SELECT 1;

-- name: any_open_child
-- A child's end and its row in the parent's journal are never seen apart here; see postgres.sql.
SELECT id FROM executions
WHERE project_id = :project_id AND parent_execution_id = :id AND phase NOT IN ('completed', 'failed', 'cancelled') LIMIT 1;
