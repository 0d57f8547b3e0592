"""Web search and page fetch: each search and each fetch is a step, so that a crash repeats none of them.

Offline, both read a small web of two pages. In production leave `local=` out for models that search by themselves,
or write `local=True` with `pip install "pydantic-ai-slim[duckduckgo,web-fetch]"`.
"""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.capabilities import WebFetch, WebSearch

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded

PAGES = {
    "https://example.com/tides": "High water in Porto is at 14:05.",
    "https://example.com/trains": "The train to Porto leaves at 9:12.",
}


async def search(query: str) -> list[str]:
    """The addresses of pages that have a word of the query."""
    return [url for url, text in PAGES.items() if any(word.lower() in text.lower() for word in query.split())]


async def fetch(url: str) -> str:
    """The text of a page."""
    return PAGES[url]


agent = Agent(
    model(
        call("search", query="water"),
        call("fetch", url="https://example.com/tides"),
        lambda messages: f"It says: {results(messages)[-1]}",
    ),
    name="reader",
    capabilities=[WebSearch(native=False, local=search), WebFetch(native=False, local=fetch)],
)
reader = durable(agent)


async def main() -> str:
    async with embedded(Registry(reader)) as p:
        return await reader.run(p, "When is high water in Porto?")


if __name__ == "__main__":
    print(asyncio.run(main()))
