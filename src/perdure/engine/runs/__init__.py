"""As in `perdure.wire.runs`."""
