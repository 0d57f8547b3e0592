-- compatible: no
-- The answer to a start is kept until some time after the executions that it names have ended: which those are, as a JSON
-- list (NULL: none, or they have ended), and since when that time counts.
ALTER TABLE idempotency RENAME COLUMN created_at_us TO kept_since_us;
ALTER TABLE idempotency ADD COLUMN executions TEXT;
