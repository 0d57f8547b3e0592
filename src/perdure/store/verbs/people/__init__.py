"""See `wire.people`."""
