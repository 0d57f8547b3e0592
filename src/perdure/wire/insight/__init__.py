"""Lists, counts, timelines, traces, spend, and why an execution waits."""
