"""As in `perdure.wire.outside`."""
