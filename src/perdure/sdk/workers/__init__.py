"""A worker claims executions, runs workflow code, renews a lease and reports."""
