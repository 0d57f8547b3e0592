"""Clients start, find, await and steer executions."""
