"""Connections, routes and answers, derived from types."""
