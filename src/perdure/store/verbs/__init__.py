"""Every durable change and every look, by noun."""
