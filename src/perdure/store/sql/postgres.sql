-- Statements that only PostgreSQL has, each with its reason.

-- name: database_time
-- Servers on several machines share this time.
SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT);

-- name: lock_projects
-- Two servers that start on an empty database at once must make one first project. There is no row yet to lock.
SELECT pg_advisory_xact_lock(1346720324);

-- name: any_open_child
-- A child that ends in the same group, or in a transaction that waits for this parent's row, may be final before its
-- end is in the journal. It will still wake the parent.
SELECT id FROM executions
WHERE project_id = :project_id AND parent_execution_id = :id AND (phase NOT IN ('completed', 'failed', 'cancelled')
  OR (step_key IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM journal j WHERE j.execution_id = :id AND j.key = executions.step_key AND j.kind = 'child')))
ORDER BY id DESC LIMIT 1;

-- name: old_snapshots
-- What keeps PostgreSQL from removing dead rows: other transactions, prepared ones, replication slots and standbys. A
-- vacuum's own transaction does not count. Slots and standbys have no time, only a number of transactions since.
SELECT 'session', pid::TEXT, COALESCE(application_name, ''), COALESCE(usename::TEXT, ''), COALESCE(state, ''),
  CAST(EXTRACT(EPOCH FROM clock_timestamp() - xact_start) AS BIGINT)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
  AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
  AND xact_start <= clock_timestamp() - CAST(:seconds AS BIGINT) * INTERVAL '1 second'
UNION ALL
SELECT 'prepared', gid, '', owner::TEXT, 'prepared', CAST(EXTRACT(EPOCH FROM clock_timestamp() - prepared) AS BIGINT)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared <= clock_timestamp() - CAST(:seconds AS BIGINT) * INTERVAL '1 second'
UNION ALL
SELECT 'slot', slot_name::TEXT, COALESCE(plugin::TEXT, ''), '', CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL
FROM pg_replication_slots WHERE age(xmin) >= CAST(:transactions AS BIGINT)
UNION ALL
SELECT 'standby', pid::TEXT, COALESCE(application_name, ''), COALESCE(usename::TEXT, ''), COALESCE(state, ''), NULL
FROM pg_stat_replication WHERE age(backend_xmin) >= CAST(:transactions AS BIGINT);

-- name: size_tables
-- A server's files: PostgreSQL knows the size of each relation.
SELECT relname::TEXT, pg_total_relation_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'executions'::regclass);

-- name: size_all
-- Dead rows before a vacuum count as free pages; their exact bytes are unknown.
SELECT pg_database_size(current_database()), NULL::BIGINT;
