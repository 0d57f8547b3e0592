"""The examples of agents, run offline as they stand."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from examples.agents import (
    budget,
    chat_memory,
    guardrails,
    handoff,
    order_approval,
    reasoning,
    research,
    router,
    streaming,
    structured_output,
    tools,
    web,
    workspace,
)
from tests.agents.provider import Provider, serving

from perdure.testing import crash_everywhere


async def test_tools() -> None:
    assert await tools.main() == "It is 21 degrees in Rome and 9 in Oslo."


async def test_structured_output() -> None:
    assert (await structured_output.main()).minutes == 20


async def test_guardrails() -> None:
    assert await guardrails.main() == ["It is on its way.", "Tripped: I only talk about parcels."]


async def test_order_processing_with_approval() -> None:
    assert await order_approval.main() == "Done: desk for 400 euros."


async def test_order_processing_with_a_model_whose_calls_have_ids_of_its_own() -> None:
    desk: dict[str, Any] = {"item": "desk"}
    said = [{"tools": [["price", desk]]}, {"tools": [["charge", {**desk, "euros": 420}]]}, {"text": "All done."}]
    provider = Provider({"One": said})
    async with serving(provider) as url:
        told = {"AGENT_MODEL": "openai:gpt-5.2", "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "examples.agents.order_approval",
            env={**os.environ, **told},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert out.decode().strip() == "All done."
    assert len(provider.made()) == 3


async def test_a_chat_with_memory() -> None:
    assert await chat_memory.main() == ["You are Ann.", "You are Ann.", "We have not met."]


async def test_streaming() -> None:
    assert "".join(await streaming.main()) == "Streams are apart from the journal."


async def test_a_router_of_agents() -> None:
    assert await router.main() == "The invoice was sent twice; one is cancelled. The parcel arrives tomorrow."


async def test_research_with_parallel_children() -> None:
    assert await research.main() == "Three questions, no answer."


async def test_mcp_tools() -> None:
    from examples.agents import mcp_tools  # the server's library takes a moment to import

    assert await mcp_tools.main() == "It is Ann."


async def test_a_budget_that_is_raised() -> None:
    assert await budget.main() == ("It will rain.", 3)


async def test_a_hand_off() -> None:
    assert await handoff.main() == "The parcel arrives tomorrow."


async def test_reasoning_is_recorded() -> None:
    assert await reasoning.main() == (["17 × 3 is 51, and 51 + 4 is 55."], "55")


async def test_web_search_and_page_fetch() -> None:
    assert await web.main() == "It says: High water in Porto is at 14:05."
    report = await crash_everywhere(web.reader, "When is high water in Porto?")
    assert report.result == "It says: High water in Porto is at 14:05."


async def test_a_crash_at_every_commit_repeats_few_commands_of_a_workspace(tmp_path: Path) -> None:
    """Each run of the program adds a dot. Only a crash during the run or before its commit repeats the run."""
    agent = workspace.builder(str(tmp_path), program="open('ran', 'a').write('.'); print(sum(range(10)))")
    report = await crash_everywhere(agent, "What is the sum?")
    assert report.result == "The program prints 45."
    runs = 1 + len(report.crashes)
    assert runs <= len((tmp_path / "ran").read_text()) < runs + len(report.crashes) / 2
