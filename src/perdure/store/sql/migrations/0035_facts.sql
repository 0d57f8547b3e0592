-- compatible: yes
-- The steps that a worker ran when it last beat: [[execution id, key, try, begun at], …].
ALTER TABLE workers ADD COLUMN in_flight {blob};
-- How people read a step, and whether a timeline may fold it.
ALTER TABLE journal ADD COLUMN label TEXT;
ALTER TABLE journal ADD COLUMN quiet INTEGER NOT NULL DEFAULT 0;
