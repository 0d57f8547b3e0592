"""The user's process: runs workflows, replays their journals, reports their outcomes."""
