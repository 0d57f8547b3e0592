"""Record the journals of this release: `python -m tests.journals.record VERSION`. Run the command once per release: old
journals stay, and only new ones are added."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from tests.journals.agents import SESSION, around_helpdesk, helpdesk, said_before
from tests.journals.hands import around_steered, steered
from tests.journals.workflows import INPUTS, app, outside

from perdure import Client, Handle, Registry
from perdure.embedded import embedded
from perdure.wire.agents.transcripts import READ, Transcript
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.records import Kind

ROOT = Path(__file__).parents[2]


async def record(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as store:
        async with embedded(f"{store}/journals.db", Registry(*app, helpdesk, steered)) as p:
            for name, value in INPUTS.items():
                if not (folder / f"{name}.json").exists():
                    handle = await p.start(app[name], value)
                    asyncio.get_running_loop().create_task(outside(p, handle, name))
                    await keep(folder, p, handle, name)
            if not (folder / f"{helpdesk.name}.json").exists():
                before = await said_before(p)
                first = await helpdesk.start(p, "Where is my money?", session_id=SESSION, on_conflict="queue")
                asyncio.get_running_loop().create_task(around_helpdesk(p, first))
                await keep(folder, p, first, helpdesk.name, before)
            if not (folder / f"{steered.name}.json").exists():
                source = await p.start(steered, 3)
                await around_steered(p, source)
                await keep(folder, p, source, steered.name)
                await keep(folder, p, await source.retry(), f"{steered.name}-retried", of=source)
                fork = await source.fork(from_step="answer", steps={"first": 8})
                await fork.resume("answer", "yes")
                await keep(folder, p, fork, f"{steered.name}-forked", of=source)


async def keep(
    folder: Path,
    client: Client,
    handle: Handle[Any],
    name: str,
    before: Transcript | None = None,
    of: Handle[Any] | None = None,
) -> None:
    """Write down an ended execution. `before` is the session's transcript, of which a journal has only the version, and
    which a summary ends. `of` is the source of a fork, whose id is the seed."""
    try:
        await handle.result(timeout=30)
    except PerdureError as error:
        sys.stderr.write(f"{name}: {error}\n")
    execution = (await handle.get()).raw
    rows = await client.journal(handle.id, limit=500)
    kept: dict[str, Any] = {
        "workflow": name.partition("-")[0],
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "id": execution.id,
        "payload": execution.payload,
        "phase": execution.phase.value,
        "result": execution.result,
        "rows": rows,
    }
    if of is not None:
        kept["seed"] = of.id
    if before is not None:
        kept["session_id"] = execution.session_id
        reading = before.version, [msgspec.structs.astuple(entry) for entry in before.entries]
        kept["readings"] = {row.seq: reading for row in rows if row.kind is Kind.TRANSCRIPT and row.name == READ}
    data = msgspec.json.format(msgspec.json.encode(kept), indent=1)
    data = data.replace(f"{ROOT}/".encode(), b"")  # tracebacks name files; not where they lie here
    (folder / f"{name}.json").write_bytes(data + b"\n")


if __name__ == "__main__":
    target = Path(__file__).parent / sys.argv[1]
    target.mkdir(exist_ok=True)
    asyncio.run(record(target))
