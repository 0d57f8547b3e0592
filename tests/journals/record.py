"""Record the journals of this release: `python -m tests.journals.record VERSION`. Run once per release, then never
again."""

import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec
from tests.journals.workflows import INPUTS, app, outside

from perdure.embedded import embedded
from perdure.wire.errors import PerdureError

ROOT = Path(__file__).parents[2]


async def record(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as store:
        async with embedded(f"{store}/journals.db", app) as p:
            for name, value in INPUTS.items():
                handle = await p.start(app[name], value)
                asyncio.get_running_loop().create_task(outside(p, handle, name))
                try:
                    await handle.result(timeout=30)
                except PerdureError as error:
                    sys.stderr.write(f"{name}: {error}\n")
                execution = await handle.get()
                rows = await p.journal(handle.id, limit=500)
                kept = {
                    "workflow": name,
                    "python": f"{sys.version_info.major}.{sys.version_info.minor}",
                    "id": execution.id,
                    "payload": execution.payload,
                    "phase": execution.phase.value,
                    "result": execution.result,
                    "rows": rows,
                }
                data = msgspec.json.format(msgspec.json.encode(kept), indent=1)
                data = data.replace(f"{ROOT}/".encode(), b"")  # tracebacks name files; not where they lie here
                (folder / f"{name}.json").write_bytes(data + b"\n")


if __name__ == "__main__":
    target = Path(__file__).parent / sys.argv[1]
    target.mkdir(exist_ok=True)
    asyncio.run(record(target))
