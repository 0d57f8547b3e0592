"""Runs the agent in this process with a model that needs no key, and kills it at every commit once."""

import asyncio
import os
from typing import Any

os.environ["AGENT_MODEL"] = "test"

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
