-- Of two indexes that look equally good PostgreSQL takes the younger, and while a table has not been analysed its rows by
-- id and its rows by workflow look alike. The primary key has to be the youngest, or every look at one execution walks
-- through those of its project.
{postgres_only}ALTER TABLE executions DROP CONSTRAINT executions_pkey;
{postgres_only}ALTER TABLE executions ADD PRIMARY KEY (project_id, id);
