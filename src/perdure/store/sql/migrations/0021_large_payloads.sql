-- compatible: no
-- A payload above 64 KiB, which `executions` then holds an empty one for: that row is written anew with each step, whatever is
-- in it. The release before would take the empty one for the payload.
ALTER TABLE execution_extras ADD COLUMN payload {blob};
