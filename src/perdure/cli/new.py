"""Writes a project that runs."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from perdure.cli.commands import Refused, add_commands
from perdure.cli.options import JsonFlag
from perdure.cli.output import emit, say

APP: Final = '''\
"""Orders: each is charged once, and shipped."""

import asyncio
from dataclasses import dataclass

from perdure import Context, step, workflow


@dataclass
class Order:
    id: int
    items: int = 1


@step(retry=3)
async def charge(order: Order) -> str:
    return f"receipt-{order.id}"


@step(retry=3)
async def ship(order: Order, number: int) -> str:
    await asyncio.sleep(0.2)  # the parcel service takes its time
    return f"parcel-{order.id}-{number}"


@workflow
async def order(ctx: Context, order: Order) -> str:
    """Each step's outcome is on disk before the next line runs. Killed anywhere, it goes on at that line."""
    ctx.log("order %d with %d items", order.id, order.items)
    receipt = await charge(order)
    await asyncio.sleep(1)  # durable, for three days as well
    parcels = []
    for number in range(1, order.items + 1):
        parcels.append(await ship(order, number))
        ctx.progress(number, order.items, "shipping")
    return f"{receipt}: {', '.join(parcels)}"
'''

TEST: Final = '''\
"""Runs the workflow in this process, and kills it at every commit once."""

import asyncio

from app import Order, order
from perdure.testing import crash_everywhere, embedded


def test_an_order_is_charged_and_shipped() -> None:
    async def main() -> str:
        async with embedded() as p:
            return await (await p.start(order, Order(id=7, items=2))).result()

    assert asyncio.run(main()) == "receipt-7: parcel-7-1, parcel-7-2"


def test_an_order_survives_a_crash_at_every_commit() -> None:
    report = asyncio.run(crash_everywhere(order, Order(id=7)))
    assert report.result == "receipt-7: parcel-7-1"
'''

AGENT_APP: Final = '''\
"""Support: an agent that looks orders up, and refunds money after an approval.

The model `test` calls every tool once, and works without an API key. For a real model:
AGENT_MODEL=openai:gpt-5.2 OPENAI_API_KEY=…, with `pip install "pydantic-ai-slim[openai]"`.
"""

import os

from pydantic_ai import Agent

from perdure.agents import durable

agent = Agent(
    os.environ.get("AGENT_MODEL", "test"),
    name="support",
    instructions="Find the order before you answer. Refund only what the customer asks for.",
    defer_model_check=True,
)


@agent.tool_plain
async def find_order(number: int) -> str:
    """Where an order is."""
    return f"order {number} is on its way"


@agent.tool_plain(requires_approval=True)
async def refund(number: int, cents: int) -> str:
    """Pay money back. A person approves it first; the run waits, however long that takes."""
    return f"{cents} cents for order {number}"


support = durable(agent)
'''

AGENT_TEST: Final = '''\
"""Runs the agent in this process, and kills it at every commit once. No recorded call runs again."""

import asyncio
from typing import Any

from app import support
from perdure.testing import crash_everywhere


async def allow(client: Any, handle: Any) -> None:
    async for item in handle.stream():
        if item.kind == "question":
            await handle.resume(item.data["step_key"], {"approved": True})
            return


def test_support_survives_a_crash_at_every_commit() -> None:
    report = asyncio.run(crash_everywhere(support, "Where is my order?", during=allow))
    assert "refund" in report.result
'''

AGENT_README: Final = """\
# {name}

    perdure dev app.py                            # server and worker; reloads on change; `k` kills the worker

and in another terminal

    perdure run support --input '"Where is my order, and may I have my money back?"' --detach
    perdure approvals                             # the refund waits for your approval
    perdure approve ID STEP --approve
    perdure show ID                               # the conversation

`pip install pytest`, and `pytest` runs the agent in one process, and kills it at every commit once.
"""

PYPROJECT: Final = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["{perdure}"]

[dependency-groups]
dev = ["pytest"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

README: Final = """\
# {name}

    perdure dev app.py                            # server and worker; reloads on change; `k` kills the worker

and in another terminal

    perdure run order --input '{{"id": 7, "items": 5}}'
    perdure ls
    perdure show ID

`pip install pytest`, and `pytest` runs the workflow in one process, and kills it at every commit once.
"""

IGNORE: Final = "__pycache__/\n.perdure/\n.venv/\n"


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Start", new)


def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write it in; made if missing.")],
    agent: Annotated[bool, typer.Option("--agent", help="An agent in place of a workflow.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a project that runs: one workflow (or agent), one test."""
    name = re.sub(r"[^a-z0-9-]+", "-", directory.resolve().name.lower()).strip("-") or "workflows"
    files = {
        "app.py": AGENT_APP if agent else APP,
        "test_app.py": AGENT_TEST if agent else TEST,
        "pyproject.toml": PYPROJECT.format(name=name, perdure="perdure[agents]" if agent else "perdure"),
        "README.md": (AGENT_README if agent else README).format(name=name),
        ".gitignore": IGNORE,
    }
    if directory.exists() and not directory.is_dir():
        raise Refused(f"{str(directory)!r} is a file; name a folder.")
    there = [file for file in files if (directory / file).exists()]
    if there:
        raise Refused(f"{str(directory)!r} has {there[0]} already; name another folder.")
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (directory / file).write_text(text, encoding="utf-8")
    if as_json:
        emit({"directory": str(directory), "files": list(files)})
        return
    say(f"Wrote {', '.join(files)} to {directory}. Next:\n")
    if directory.resolve() != Path.cwd():
        say(f"    cd {shlex.quote(str(directory))}")
    if agent:
        say('    pip install "perdure[agents]"')
    say("    perdure dev app.py\n")
