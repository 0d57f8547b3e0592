"""Tools, documentation and a skill for programs that write code."""
