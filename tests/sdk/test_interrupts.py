"""Ctrl-C ends a program, wherever the signal finds the code; an exception that code raises never does."""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.interrupts import is_interrupt, run_until_complete
from perdure.sdk.replay.machine import Machine


def press_ctrl_c() -> None:
    """Raise SIGINT twice: first to cancel the main task of `asyncio.run`, then to interrupt the running code."""
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def interrupts() -> None:
    raise KeyboardInterrupt


async def within_a_runner(call: Callable[[], object]) -> None:
    call()


@pytest.mark.parametrize(("call", "is_real"), [(press_ctrl_c, True), (interrupts, False), (sys.exit, False)])
def test_only_a_signal_is_an_interrupt(call: Callable[[], object], is_real: bool) -> None:
    told: list[bool] = []

    def tell() -> None:
        try:
            call()
        except BaseException as error:
            told.append(is_interrupt(error))

    with pytest.raises(KeyboardInterrupt) if is_real else pytest.MonkeyPatch.context():
        asyncio.run(within_a_runner(tell))
    assert told == [is_real]


@pytest.mark.parametrize("call", [interrupts, sys.exit])
@pytest.mark.parametrize("where", ["code", "task", "callback", "clean-up"])
def test_workflow_code_that_ends_programs_ends_itself_only(call: Callable[[], object], where: str) -> None:
    async def ends() -> None:
        call()

    async def code() -> str:
        if where == "code":
            await ends()
        elif where == "task":
            await asyncio.create_task(ends())
        elif where == "callback":
            asyncio.get_running_loop().call_soon(call)
            await asyncio.sleep(0)
        else:
            try:
                await asyncio.sleep(100)
            finally:
                call()
        return "went on"

    def drive() -> None:
        machine = Machine(code, seed="seed")
        advance(machine, Journal().rows)
        if where == "clean-up":
            machine.close()
        elif where == "callback":
            assert machine.outcome == "went on"
        else:
            assert isinstance(machine.error, KeyboardInterrupt | SystemExit)

    asyncio.run(within_a_runner(drive))


@pytest.mark.parametrize("where", ["code", "task", "callback"])
def test_ctrl_c_leaves_workflow_code(where: str) -> None:
    async def ends() -> None:
        press_ctrl_c()

    async def code() -> None:
        if where == "code":
            await ends()
        elif where == "task":
            await asyncio.create_task(ends())
        else:
            asyncio.get_running_loop().call_soon(press_ctrl_c)
            await asyncio.sleep(0)

    def drive() -> None:
        machine = Machine(code, seed="seed")
        try:
            with pytest.raises(KeyboardInterrupt):
                machine.advance(Journal().rows)
        finally:
            machine.close()

    with pytest.raises(KeyboardInterrupt):  # of the first one
        asyncio.run(within_a_runner(drive))


def test_where_python_s_own_handler_is_in_place_each_interrupt_counts_as_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for call in (interrupts, lambda: signal.raise_signal(signal.SIGINT)):
            with pytest.raises(KeyboardInterrupt) as caught:
                call()
            assert is_interrupt(caught.value)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loop_goes_on_past_tasks_that_would_end_it() -> None:
    async def main() -> list[str]:
        async def ends(call: Callable[[], Any]) -> None:
            call()

        tasks = [asyncio.create_task(ends(call)) for call in (interrupts, sys.exit)]
        return [type(error).__name__ for error in await asyncio.gather(*tasks, return_exceptions=True)]

    loop = asyncio.new_event_loop()
    before = signal.signal(signal.SIGINT, lambda *_: None)  # as in a process that has a handler of its own
    try:
        assert run_until_complete(loop, loop.create_task(main())) == ["KeyboardInterrupt", "SystemExit"]
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()
