"""As in `perdure.wire.people`."""
