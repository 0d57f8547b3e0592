"""See `wire.agents`."""
