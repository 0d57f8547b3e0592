"""Tools, documentation and a skill for coding agents."""
