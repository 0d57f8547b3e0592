-- A row for each transaction whose end a server may have to ask after. The number that PostgreSQL gives a transaction does
-- not do: what a crash took back leaves its number to another one.
{postgres_only}CREATE TABLE commits (token INTEGER PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now());
