-- compatible: no
-- Large payloads; `executions` holds an empty one for them. That row is written anew with each step, whatever is in it.
-- The release before would take the empty one for the payload. On SQLite it is a heap: a look for another row of a B-tree
-- by execution would read the large ones that it passes.
CREATE TABLE large_payloads (
  execution_id {text} PRIMARY KEY,
  payload {blob} NOT NULL
) {heap};
