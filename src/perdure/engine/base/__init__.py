"""As in `perdure.wire.base`."""
