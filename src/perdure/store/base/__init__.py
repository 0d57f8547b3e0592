"""The seam between verbs and drivers."""
