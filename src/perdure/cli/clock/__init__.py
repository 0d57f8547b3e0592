"""As in `perdure.wire.clock`."""
