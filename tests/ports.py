"""Ports for servers that are processes of their own, and that start on the same port again."""

import socket
import sys


def free_port() -> int:
    """A port on which nothing listens. Where the system allows it, no other program gets it while this process lives:
    a socket holds it that never listens, and a server may still listen there."""
    holder = socket.socket()
    if sys.platform == "linux":
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    if sys.platform == "linux":
        holder.detach()  # open to the end of this process
    else:
        holder.close()
    return port
