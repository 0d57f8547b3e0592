"""The user's process: runs workflows, replays journals, reports outcomes."""
