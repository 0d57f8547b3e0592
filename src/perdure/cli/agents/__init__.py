"""As in `perdure.wire.agents`."""
