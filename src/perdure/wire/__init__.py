"""The words of both wings: what is remembered and what travels."""
