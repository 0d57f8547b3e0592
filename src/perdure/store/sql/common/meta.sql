-- What the store knows about itself, by name.

-- name: read_meta
SELECT value FROM meta WHERE name = :name;

-- name: write_meta
-- holds: meta=name
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;
