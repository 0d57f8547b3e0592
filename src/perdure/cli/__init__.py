"""The `perdure` command, a composition root that may import both wings."""
