"""The `perdure` command, a composition root: it may see both wings and imports them only when asked to."""
