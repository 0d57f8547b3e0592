"""Every durable change and every look, one function each, by noun."""
