"""The official client, with what its users add to follow tasks: the shapes of the extension."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client._transport import Transport
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from pydantic import ConfigDict, Field

Json = Any
SECONDS = 60.0
TASKS = "io.modelcontextprotocol/tasks"


class TaskFields(types.Result):
    model_config = ConfigDict(populate_by_name=True)

    task_id: str = Field(alias="taskId")
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    created_at: str = Field(alias="createdAt")
    last_updated_at: str = Field(alias="lastUpdatedAt")
    ttl_ms: int | None = Field(alias="ttlMs")
    status_message: str | None = Field(default=None, alias="statusMessage")
    poll_interval_ms: int | None = Field(default=None, alias="pollIntervalMs")


class Created(TaskFields):
    result_type: Literal["task"] = Field(alias="resultType")


class Task(TaskFields):
    result_type: Literal["complete"] = Field(alias="resultType")
    result: dict[str, Json] | None = None
    input_requests: dict[str, Json] | None = Field(default=None, alias="inputRequests")


class TaskParams(types.RequestParams):
    task_id: str = Field(serialization_alias="taskId")


class UpdateParams(TaskParams):
    input_responses: dict[str, Json] = Field(serialization_alias="inputResponses")


class TaskRequest(types.Request[TaskParams, str]):
    params: TaskParams


class UpdateRequest(types.Request[UpdateParams, str]):
    params: UpdateParams


class Tasks(ClientExtension):
    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        async def resolve(created: Created, context: Any) -> types.CallToolResult:
            raise AssertionError("tests follow tasks themselves")

        return [ResultClaim(result_type="task", model=Created, resolve=resolve)]


class Session:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def text(self, tool: str, **arguments: Json) -> str:
        """Call a tool that must succeed, and return the text."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        return said(result)

    async def refusal(self, tool: str, **arguments: Json) -> str:
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.content
        return said(result)

    async def begin(self, tool: str, **arguments: Json) -> Created:
        created = await self.client.session.call_tool(tool, arguments, allow_claimed=True)
        assert isinstance(created, Created), created
        return created

    async def get(self, id: str) -> Task:
        request = TaskRequest(method="tasks/get", params=TaskParams(task_id=id))
        return await self.client.session.send_request(request, Task)

    async def update(self, id: str, **responses: Json) -> None:
        await self.update_all(id, responses)

    async def update_all(self, id: str, responses: dict[str, Json]) -> None:
        params = UpdateParams(task_id=id, input_responses=responses)
        await self.client.session.send_request(UpdateRequest(method="tasks/update", params=params), types.Result)

    async def cancel(self, id: str) -> None:
        request = TaskRequest(method="tasks/cancel", params=TaskParams(task_id=id))
        await self.client.session.send_request(request, types.Result)

    async def until(self, id: str, true: Callable[[Task], bool]) -> Task:
        async with asyncio.timeout(SECONDS):
            while not true(task := await self.get(id)):  # noqa: ASYNC110  # the protocol has no event for it
                await asyncio.sleep(0.05)
        return task

    async def until_status(self, id: str, status: str) -> Task:
        return await self.until(id, lambda task: task.status == status)


def said(result: types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text


@asynccontextmanager
async def session(transport: Transport, *, tasks: bool = True, **options: Any) -> AsyncIterator[Session]:
    extensions = [Tasks()] if tasks else []
    async with Client(transport, extensions=extensions, **options) as client:
        yield Session(client)


@asynccontextmanager
async def http_session(url: str, key: str, **options: Any) -> AsyncIterator[Session]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=SECONDS) as client,
        session(streamable_http_client(f"{url}/mcp", http_client=client), **options) as made,
    ):
        yield made


async def accepts(context: Any, params: Any) -> types.ElicitResult:
    """A person who says yes to everything."""
    return types.ElicitResult(action="accept", content={"approved": True, "note": "fine"})
