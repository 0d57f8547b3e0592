"""The client of `app`: a JSON request a line on standard input, a JSON reply a line on standard output."""
# mypy: ignore-errors

import asyncio
import json
import sys
from typing import Any

import app
from polos import PolosClient
from polos.features import events
from polos.features.events import EventData

WORKFLOWS = {name: value for name, value in vars(app).items() if hasattr(value, "invoke") and hasattr(value, "id")}


async def answer(client: PolosClient, said: dict[str, Any]) -> Any:
    do = said.pop("do")
    if do == "run":
        return await WORKFLOWS[said.pop("workflow")].run(client, said.pop("payload"), **said)
    if do == "invoke":
        handle = await WORKFLOWS[said.pop("workflow")].invoke(client, said.pop("payload"), **said)
        return handle.to_dict()
    if do == "get":
        return await client.get_execution(said["id"])
    if do == "cancel":
        return await client.cancel_execution(said["id"])
    if do == "resume":
        await client.resume(said["workflow"], said["id"], said["step"], said["data"])
        return None
    if do == "publish":
        return await events.publish(client, topic=said["topic"], event_data=EventData(**said["event"]))
    if do == "agent":
        result = await app.helper.run(client, said["input"], **said.get("options", {}))
        return json.loads(result.model_dump_json())
    if do == "stream":
        result = await app.helper.stream(client, said["input"])
        return {"id": result.id, "text": await result.text()}
    if do == "suspended":
        return await suspended(client, said["workflow"], said["id"])
    raise ValueError(do)


async def suspended(client: PolosClient, workflow_id: str, id: str) -> Any:
    """The first question of a run, by its stream."""
    async for event in events.stream_workflow(client, workflow_id, id, last_sequence_id=0):
        if event.event_type and event.event_type.startswith("suspend_"):
            return {"step": event.event_type.removeprefix("suspend_"), "data": event.data}
    return None


async def main() -> None:
    client = PolosClient()
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pending: set[asyncio.Task[None]] = set()

    async def one(line: bytes) -> None:
        said = json.loads(line)
        number = said.pop("number")
        try:
            reply = {"number": number, "value": await answer(client, said)}
        except Exception as error:
            reply = {"number": number, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply, default=str), flush=True)

    while line := await reader.readline():
        task = asyncio.create_task(one(line))
        pending.add(task)
        task.add_done_callback(pending.discard)


asyncio.run(main())
