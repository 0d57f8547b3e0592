"""Logs, metrics, health, and received traces."""
