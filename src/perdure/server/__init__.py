"""Who may ask, and how: the HTTP face of the engine."""
