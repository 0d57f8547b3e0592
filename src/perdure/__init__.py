"""Perdure runs workflows that must not lose their place: plain async functions whose every step is durable."""
