"""Ports for servers in separate processes, which may start on the same port again."""

import socket
import sys


def free_port() -> int:
    """A port on which no program listens. If the system allows, a silent socket keeps the port from other programs
    while the process lives. A server may still listen on the port."""
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
