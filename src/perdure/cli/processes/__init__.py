"""Servers, workers, `dev`, and what needs neither: check, new, docs."""
