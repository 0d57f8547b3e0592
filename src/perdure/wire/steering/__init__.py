"""Forks, retries, acts, pauses, bulk jobs."""
