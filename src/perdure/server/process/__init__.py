"""The server as a process: settings, signals, limits."""
