"""Starts by time or by event: schedules, cron, triggers."""
