-- Registrations that have ended. A copy of a registration's first message that comes late must not open it again: what it
-- held is somebody else's by now, and a worker that was told "your lease holds" would go on with it.
CREATE TABLE ended_workers (
  id {text} PRIMARY KEY,
  ended_at_us INTEGER NOT NULL
) {table};
