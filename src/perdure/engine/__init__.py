"""The engine: services that handle requests, and loops that act by themselves."""
