"""Routes written by hand."""
