"""Requests on their way to a server."""
