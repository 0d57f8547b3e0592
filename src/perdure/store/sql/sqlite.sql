-- Statements that only SQLite has, each with its reason.

-- name: database_time
-- The file's single server has the time.
SELECT NULL;

-- name: old_snapshots
-- The file's single server has no other beside it, so no view is old. The WHERE only uses the parameters.
SELECT '', '', '', '', '', 0 WHERE :seconds IS NULL AND :transactions IS NULL;

-- name: integrity
-- SQLite's own check of its file; PostgreSQL has no such statement.
PRAGMA integrity_check(10);

-- name: incremental_vacuum
-- Returns the pages of deleted rows to the file system in small steps.
PRAGMA incremental_vacuum(2000);

-- name: lock_projects
-- SQLite has a single writer, so no other makes the first project meanwhile.
SELECT 1;

-- name: any_open_child
-- A child's end and its row in the parent's journal always appear together here; see postgres.sql.
SELECT id FROM executions
WHERE project_id = :project_id AND parent_execution_id = :id AND phase NOT IN ('completed', 'failed', 'cancelled')
ORDER BY id DESC LIMIT 1;

-- name: size_tables
-- Pages of a file: SQLite counts them by table and index.
SELECT s.tbl_name, CAST(SUM(d.pgsize) AS BIGINT),
  CAST(SUM(CASE WHEN s.type = 'index' THEN d.pgsize ELSE 0 END) AS BIGINT)
FROM dbstat d JOIN sqlite_schema s ON s.name = d.name WHERE d.aggregate = 1 GROUP BY s.tbl_name;

-- name: size_all
-- With the free pages, which the file keeps for new rows.
SELECT page_count * page_size, freelist_count * page_size
FROM pragma_page_count(), pragma_page_size(), pragma_freelist_count();
