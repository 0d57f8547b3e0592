"""Code that keeps the event loop from running is logged with its place."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import Context
from perdure.embedded import embedded_sync
from perdure.sdk.workers import loop_watchdog as watchdog
from perdure.sdk.workers.loop_watchdog import blocking_code, loop_watchdog
from perdure.sdk.workflows.workflow import Registry


class CapturedLog(logging.Handler):
    """Keeps what was logged, and sets `came` at the first text with a given word."""

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
def capture() -> Iterator[Callable[[str], CapturedLog]]:
    handlers: list[CapturedLog] = []

    def start(word: str) -> CapturedLog:
        handlers.append(CapturedLog(word))
        watchdog.logger.addHandler(handlers[-1])
        return handlers[-1]

    yield start
    for handler in handlers:
        watchdog.logger.removeHandler(handler)


async def test_code_that_does_not_let_go_of_the_loop_is_named_once(capture: Callable[[str], CapturedLog]) -> None:
    blocked, ended = capture("is blocked by"), capture("runs again")

    def asks_a_slow_service() -> None:
        assert blocked.came.wait(60)

    async def body() -> None:
        asks_a_slow_service()

    with loop_watchdog(asyncio.get_running_loop(), look_seconds=0.01, blocked_seconds=0.01):
        await asyncio.create_task(body())
        await asyncio.to_thread(ended.came.wait, 60)
    [text] = [text for text in blocked.texts if "is blocked by 'body'" in text]  # on a busy machine, others, too
    assert f"({__file__}:" in text and "asks_a_slow_service" in text and "/asyncio/" not in text


async def test_code_of_a_library_is_not_named_if_the_program_called_it(capture: Callable[[str], CapturedLog]) -> None:
    """A web server's frames lie around those of the program."""
    blocked = capture("is blocked by")

    async def view() -> None:
        assert blocked.came.wait(60)

    library: dict[str, Any] = {"view": view, "__name__": "uvicorn"}
    exec(compile("async def serve(): await view()", "<uvicorn>", "exec"), library)
    with loop_watchdog(asyncio.get_running_loop(), look_seconds=0.01, blocked_seconds=0.01):
        await asyncio.create_task(library["serve"]())
    assert any("is blocked by 'view'" in text for text in blocked.texts)


def test_an_embedded_application_names_the_code_that_blocks_it(
    capture: Callable[[str], CapturedLog], tmp_path: Path
) -> None:
    blocked, ended = capture("is blocked by 'blocks'"), capture("runs again")
    app = Registry()

    @app.workflow
    async def flow(ctx: Context) -> None:
        async def blocks() -> None:
            assert blocked.came.wait(60)

        await ctx.step("blocks", blocks)

    with embedded_sync(str(tmp_path / "app.db"), app) as p:
        p.start(flow).result()
        assert ended.came.wait(60)
    assert any(f"({__file__}:" in text for text in blocked.texts)


def test_a_loop_that_waits_runs_nobody_s_code() -> None:
    """A process that was frozen therefore logs nothing when the process goes on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
    assert thread.ident is not None and not blocking_code(thread.ident)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
