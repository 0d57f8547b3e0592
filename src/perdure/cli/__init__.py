"""The `perdure` command, a composition root: it sees both wings."""
