-- compatible: yes
-- Also the budgets of executions.
DROP INDEX budgets_paused;
CREATE INDEX budgets_paused ON budgets (root_id, execution_id) WHERE paused_at_us IS NOT NULL;
