-- compatible: no
-- A large value that an execution has already is stored once. The release before would read an empty one.

-- A step's value is empty if it equals the payload. `result` is empty if it equals the value of this row of the journal.
ALTER TABLE executions ADD COLUMN result_seq INTEGER;
