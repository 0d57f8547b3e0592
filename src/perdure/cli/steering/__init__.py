"""As in `perdure.wire.steering`."""
