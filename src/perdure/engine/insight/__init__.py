"""As in `perdure.wire.insight`."""
