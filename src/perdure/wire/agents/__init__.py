"""Sessions, transcripts, budgets, approvals, definitions."""
