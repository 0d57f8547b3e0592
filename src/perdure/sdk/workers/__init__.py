"""A worker claims executions, runs them, keeps its lease and reports."""
