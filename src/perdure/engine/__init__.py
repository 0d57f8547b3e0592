"""Services for requests, and loops that act by themselves."""
