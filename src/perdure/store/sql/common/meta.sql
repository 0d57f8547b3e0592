-- The store's own facts, by name.

-- name: read_meta
SELECT value FROM meta WHERE name = :name;

-- name: try_lock_meta
-- picks: a named value, unless it is locked
SELECT value FROM meta WHERE name = :name {FOR UPDATE SKIP LOCKED};

-- name: write_meta
-- holds: meta=name
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;
