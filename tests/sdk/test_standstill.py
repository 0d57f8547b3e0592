"""Code that keeps the event loop from running is told, with its place."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from perdure.sdk import standstill
from perdure.sdk.standstill import blocking_code, watched


class Heard(logging.Handler):
    """What was logged; wakes who waits for a word in it, in whatever thread."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word
        self.came = threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if self.word in self.texts[-1]:
            self.came.set()


@pytest.fixture
def heard() -> Iterator[Callable[[str], Heard]]:
    handlers: list[Heard] = []

    def hear(word: str) -> Heard:
        handlers.append(Heard(word))
        standstill.logger.addHandler(handlers[-1])
        return handlers[-1]

    yield hear
    for handler in handlers:
        standstill.logger.removeHandler(handler)


async def test_code_that_does_not_let_go_of_the_loop_is_named_once(heard: Callable[[str], Heard]) -> None:
    told, ended = heard("is blocked by"), heard("runs again")

    def asks_a_slow_service() -> None:
        assert told.came.wait(60)

    async def body() -> None:
        asks_a_slow_service()

    with watched(asyncio.get_running_loop(), look_seconds=0.01, blocked_seconds=0.01):
        await asyncio.create_task(body())
        await asyncio.to_thread(ended.came.wait, 60)
    [text] = [text for text in told.texts if "is blocked by" in text]
    assert "'body'" in text and f"({__file__}:" in text and "asks_a_slow_service" in text and "asyncio" not in text


def test_a_loop_that_waits_runs_nobody_s_code() -> None:
    """So a process that was frozen says nothing when it goes on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
    assert thread.ident is not None and not blocking_code(thread.ident)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
