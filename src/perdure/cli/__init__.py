"""The `perdure` command, a composition root: it sees both wings and imports them only when needed."""
