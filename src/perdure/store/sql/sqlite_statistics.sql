-- What SQLite's planner should believe of a store that has been used for years. Without it an empty file's plans are
-- guesses, and `project_id = ?` on the primary key looks as good as an index made for the query. Rows of sqlite_stat1:
-- table, index, and how many rows share a prefix of the index's columns (the first number is the whole).
ANALYZE;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('executions', 'executions', '1000000 1000000 1'),
  ('executions', 'executions_by_workflow', '1000000 1000000 100000 1'),
  ('executions', 'executions_ready', '10000 10000 10000 5000 1 1'),
  ('executions', 'executions_ready_limited', '10000 10000 10000 1000 10 5 1 1'),
  ('executions', 'executions_held', '1000 100 1'),
  ('executions', 'executions_held_limited', '1000 1000 50 5'),
  ('executions', 'executions_due', '10000 5000 1'),
  ('executions', 'executions_early', '100 50'),
 ('executions', 'executions_idle', '10000 10000 5000 2500 1000'),
  ('executions', 'executions_by_parent', '100000 100000 10 1'),
  ('executions', 'executions_by_root', '100000 100000 10 1'),
  ('executions', 'executions_by_session', '100000 100000 10 1'),
  ('executions', 'executions_by_user', '100000 100000 100 1'),
  ('executions', 'executions_by_batch', '100000 100000 100 1'),
  ('executions', 'executions_by_key', '100000 100000 50000 1'),
  ('execution_tags', 'execution_tags', '100000 100000 50000 1000 1'),
  ('execution_tags', 'execution_tags_of', '100000 3'),
  ('journal', 'journal', '5000000 5 1'),
  ('journal', 'journal_outcomes', '2000000 3 1 1'),
  ('waits', 'waits', '100000 2 1'),
  ('waits', 'waits_open', '10000 10000 10 1'),
  ('logs', 'logs', '1000000 10 1'),
  ('events', 'events', '1000000 1000000 1000 1'),
  ('events', 'events_by_time', '1000000 1'),
  ('idempotency', 'idempotency_by_time', '100000 1'),
  ('topics', 'topics', '10000 10000 1'),
  ('workers', 'workers', '20 1'),
  ('workflows', 'workflows', '100 100 50 1'),
  ('deployments', 'deployments', '10 10 1'),
  ('queues', 'queues', '100 100 1'),
  ('idempotency', 'idempotency', '100000 100000 50000 1');
ANALYZE sqlite_schema;
