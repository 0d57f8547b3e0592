"""The calls of user code: decorators, the context, steps, children, events."""
