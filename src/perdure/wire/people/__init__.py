"""Accounts, projects, keys, signatures."""
