"""The words both wings speak, what is remembered and what travels; it imports nothing else of ours."""
