"""MCP over standard input and output, for a program that starts the server."""

from mcp.server.stdio import stdio_server

from perdure.mcp.asking import AskCaller
from perdure.mcp.server import Tools


async def serve(caller: AskCaller) -> None:
    """Serve until the input ends."""
    server = Tools(lambda ctx: caller).server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
