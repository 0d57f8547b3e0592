"""MCP: tools for coding agents."""

from perdure.server.http.problems import Reply
from perdure.server.http.routing import Call, Routes
from perdure.server.routes.tool_server import BODY_BYTES_MAX
from perdure.wire.base.access import Role

routes = Routes("MCP")


@routes.post(
    "/mcp",
    repeated="a repeated `start_execution` with its `key` starts nothing; other tool calls count again",
    role=Role.READ,
    raw_body=("application/json",),
    body_bytes_max=BODY_BYTES_MAX,
)
async def mcp(call: Call) -> Reply:
    """The Model Context Protocol over streamable HTTP, without sessions.

    Each tool checks the role of its operation. Every workflow and agent is a tool, run as a task.
    """
    return await call.services.answer_mcp(call, await call.raw_body())
