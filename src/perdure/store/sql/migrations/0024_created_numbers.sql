-- compatible: yes
-- The order in which executions were started and events published, whatever the clocks said: a wait looks at the events
-- with a greater number than its execution's. NULL: written by the release before; the times are compared then. The SQLite
-- driver gives the numbers (`created_number()`), on PostgreSQL a sequence does.
ALTER TABLE executions ADD COLUMN created_number INTEGER;
ALTER TABLE events ADD COLUMN created_number INTEGER;
{postgres_only}CREATE SEQUENCE created_numbers;
{postgres_only}ALTER TABLE executions ALTER COLUMN created_number SET DEFAULT nextval('created_numbers');
{postgres_only}ALTER TABLE events ALTER COLUMN created_number SET DEFAULT nextval('created_numbers');
{postgres_only}GRANT USAGE ON SEQUENCE created_numbers TO PUBLIC;
