-- What only SQLite can say, each with its reason.

-- name: integrity
-- SQLite's own check of its file; PostgreSQL has no such statement.
PRAGMA integrity_check(10);

-- name: incremental_vacuum
-- The pages of deleted rows go back to the file system in small steps.
PRAGMA incremental_vacuum(2000);
