"""The HTTP interface of the engine: authentication, routes and answers."""
