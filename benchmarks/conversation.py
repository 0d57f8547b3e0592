"""A long conversation with a durable agent: `python -m benchmarks.conversation --turns 200`.

One session, one turn after another, embedded on a file. The model is offline and answers at once with some paragraphs:
what is measured is the rest, beside the same conversation with the plain agent, whose library takes longer with each
message, too. The two take turns. Times are the clock's, and the processor's (`cpu`): the least of the turns around,
which says something on a busy machine, too. `--compact` has what is older than some 40 messages summarized. And how
many bytes the transcript takes in the file, beside what was said.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import file_bytes, run_loop
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from perdure.agents import Compaction, durable
from perdure.embedded import embedded
from perdure.sdk.workflows.workflow import Registry
from perdure.store.inspection import sizes_of

TABLES: Final = ("messages", "transcripts", "transcript_entries", "turns")
WORDS: Final = "the parcel was handed over to the carrier on Tuesday and is expected to arrive by noon on Thursday; "
AROUND: Final = 5
"""How many turns on both sides count as the tenth; twice as many are the last. Of the processor's times four times as
many are looked at, for the least."""


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Some paragraphs, never the same."""
    usage = RequestUsage(input_tokens=100 * len(messages), output_tokens=300)  # as a provider says it
    return ModelResponse(parts=[TextPart(f"Answer {len(messages)}: " + WORDS * 12)], usage=usage)


def question(n: int) -> str:
    return f"Question {n}: " + WORDS * 3


class Times:
    """How long each turn took, in ms by the clock and of the processor."""

    def __init__(self) -> None:
        self._clock: list[float] = []
        self._processor: list[float] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        clock, processor = time.perf_counter(), time.process_time()
        yield
        self._clock.append((time.perf_counter() - clock) * 1e3)
        self._processor.append((time.process_time() - processor) * 1e3)

    def at_tenth_and_last(self) -> tuple[float, float, float, float]:
        """How long a turn took at the beginning and at the end: the median by the clock, the least of the processor."""
        clock, processor = self._clock, self._processor
        return (
            statistics.median(clock[max(0, 10 - AROUND) : 10 + AROUND]),
            statistics.median(clock[-2 * AROUND :]),
            min(processor[1 : 4 * AROUND]),
            min(processor[-4 * AROUND :]),
        )


def new_agent() -> Agent[None, str]:
    return Agent(FunctionModel(answer), name="chat", instructions="You answer questions about parcels.")


async def measure(store: str, turns: int, *, compact: bool) -> dict[str, Any]:
    plain, history = new_agent(), list[ModelMessage]()
    agent = durable(new_agent(), compaction=Compaction(above=40, keep=10) if compact else None)
    ours, theirs = Times(), Times()
    async with embedded(store, Registry(agent)) as p:
        for n in range(turns):
            with ours.turn():
                handle = await agent.start(p, question(n), session_id="s")
                await handle.result()
            with theirs.turn():
                history = (await plain.run(question(n), message_history=history)).all_messages()
        said = await p.transcript("s")
    tenth, last, tenth_cpu, last_cpu = ours.at_tenth_and_last()
    plain_tenth, plain_last, plain_tenth_cpu, plain_last_cpu = theirs.at_tenth_and_last()
    own = sum(len(bytes(entry.message)) for entry in said.entries)
    tables = {name: size for name, size, _ in (await sizes_of(store))["size_tables"]}
    stored = sum(tables[name] for name in TABLES)
    return {
        "turns": turns,
        "messages": len(said.entries),
        "tenth_ms": tenth,
        "last_ms": last,
        "last_to_tenth": last / tenth,
        "plain_tenth_ms": plain_tenth,
        "plain_last_ms": plain_last,
        "tenth_cpu_ms": tenth_cpu,
        "last_cpu_ms": last_cpu,
        "last_to_tenth_cpu": last_cpu / tenth_cpu,
        "plain_tenth_cpu_ms": plain_tenth_cpu,
        "plain_last_cpu_ms": plain_last_cpu,
        "message_bytes": own,
        "stored_bytes": stored,
        "stored_to_message_bytes": stored / own,
        "file_bytes": file_bytes(store),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--compact", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        store = str(Path(folder) / "perdure.db")
        print(json.dumps(run_loop(measure(store, given.turns, compact=given.compact))))


if __name__ == "__main__":
    main()
