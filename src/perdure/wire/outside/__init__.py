"""Webhooks, Slack, push workers."""
