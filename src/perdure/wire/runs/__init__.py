"""Executions from start to end, and workers."""
