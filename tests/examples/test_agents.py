"""The examples of agents, run offline as they stand."""

from examples.agents import (
    budget,
    chat_memory,
    guardrails,
    order_approval,
    research,
    router,
    streaming,
    structured_output,
    tools,
)


async def test_tools() -> None:
    assert await tools.main() == "It is 21 degrees in Rome and 9 in Oslo."


async def test_structured_output() -> None:
    assert (await structured_output.main()).minutes == 20


async def test_guardrails() -> None:
    assert await guardrails.main() == ["It is on its way.", "Tripped: I only talk about parcels."]


async def test_order_processing_with_approval() -> None:
    assert await order_approval.main() == "Done: desk for 400 euros."


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
