-- compatible: no
-- 0: free. 1: the execution's queue has limits.
ALTER TABLE executions RENAME COLUMN limited TO gate;
