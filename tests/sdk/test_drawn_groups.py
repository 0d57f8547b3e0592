"""D0: with the same journal a call gets its own outcome, or the execution is blocked, or the worker told it before."""

import asyncio
import threading
import time
from collections.abc import Callable
from unittest.mock import MagicMock, Mock

import pytest
from tests.sdk.drawn_groups import judge_many
from tests.sdk.test_context import Live

from perdure import Context, workflow

GROUPS = 10_000
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of blocked executions


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_no_group_of_concurrent_calls_swaps_outcomes_in_silence(strict: bool) -> None:
    found, wrong = judge_many(0, 300, strict=strict)
    assert found["silent"] == 0, wrong
    assert found["without need"] <= 3, wrong
    assert strict or found["told"] > 20
    assert found["blocked"] > 20


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_no_group_of_concurrent_calls_swaps_outcomes_in_silence_at_length(strict: bool) -> None:
    found, wrong = judge_many(1_000_000, GROUPS, strict=strict)
    assert found["silent"] == 0, wrong
    assert found["without need"] <= GROUPS // 100, wrong


class Client:
    """Another number in each process, and a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made = time.monotonic_ns()

    def get(self, url: str) -> str:
        return url


@pytest.mark.parametrize("style", ["argument", "lambda", "method"])
def test_one_client_of_all_calls_does_not_block_them_while_some_wait_for_their_turn(style: str) -> None:
    @workflow(strict=True)
    async def flow(ctx: Context) -> list[str]:
        client, room = Client(), asyncio.Semaphore(2)

        async def one(url: str) -> str:
            async with room:
                if style == "argument":
                    return await ctx.step("get", Client.get, client, url)
                if style == "method":
                    return await ctx.step("get", client.get, url)
                return await ctx.step("get", lambda: client.get(url))

        return await asyncio.gather(*(one(url) for url in "abcdef"))

    live = Live(flow)
    for at in range(6):
        live.answer(live.machine.outstanding()[0].key, "abcdef"[at])
        live.replay()
    assert live.result == [*"abcdef"]


class Half:
    """Two instances differ in their locks only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize("kind", [threading.Lock, Half])
def test_an_outcome_for_an_object_that_looks_like_one_of_a_task_to_come_is_doubted(kind: Callable[[], object]) -> None:
    @workflow
    async def flow(ctx: Context) -> list[int]:
        async def one(client: object, seconds: int) -> int:
            if seconds:
                await ctx.sleep(seconds)
            return await ctx.step("get", id, client)

        return [*await asyncio.gather(one(kind(), 0), one(kind(), 1))]

    live = Live(flow)
    live.answer(live.machine.outstanding()[0].key, 1)
    live.replay()
    assert live.machine.doubts is not None
    assert "Nothing tells the concurrent calls of step 'get' apart" in live.machine.doubts.texts[0]


class Hostile:
    """A proxy without its object."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", [Hostile, Mock, MagicMock])
def test_variables_of_other_tasks_are_read_without_running_their_code(kind: type) -> None:
    @workflow
    async def flow(ctx: Context) -> list[str]:
        client = Client()

        async def one(url: str, proxy: object) -> str:
            if url == "b":
                await ctx.sleep(1)
            return await ctx.step("get", Client.get, client, url)

        return [*await asyncio.gather(one("a", None), one("b", kind()))]

    live = Live(flow)
    live.answer(live.machine.outstanding()[0].key, "a")
    live.replay()
    live.timer()
    live.answer(live.machine.outstanding()[0].key, "b")
    assert live.result == ["a", "b"]
