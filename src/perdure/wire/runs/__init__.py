"""Executions from start to end, and the workers that run them."""
