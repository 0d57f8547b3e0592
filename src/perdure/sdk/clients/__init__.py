"""Clients start executions, find them, wait for them and steer them."""
