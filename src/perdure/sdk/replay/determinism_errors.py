from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from perdure.sdk.base.errors import Diverged, Stuck
from perdure.sdk.payloads.fingerprints import numbers_of, split
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.handles import InnerTask
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.source_location import source_location
from perdure.sdk.replay.task_identity import parse_scopes
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row

MIXED_UP: Final = "Create concurrent tasks in the same order in every run: from a list, not from a set. "
ANOTHER_TIME: Final = (
    "A delay must be the same in every replay: take it neither from a clock nor from random numbers, except those of "
    "`ctx.now()` and `ctx.random`. "
)
NUMBERED: Final = "Tasks get the numbers of `ctx.uuid()` and `ctx.random` in the order in which they ask. "


def diverged(
    row: Row, call: DurableCall | None, calls: Iterable[DurableCall], main: InnerTask | None, loop: InnerLoop
) -> Diverged:
    """The error for a `row` that matches neither `call` nor any of the open `calls`."""
    open_calls = list(calls)
    timer = loop.timers.get(row.key) if row.kind is Kind.TIMER and row.key is not None else None
    if call is None and timer is None:
        call = next((one for one in open_calls if not one.issued), open_calls[0] if open_calls else None)
    is_done = main is not None and main.done()
    source = None if call is None else call.source
    advice = ""
    if is_done:
        asks = "has already ended"
    elif call is None:
        timer = timer or loop.earliest()
        asks = "asks for nothing" if timer is None else f"asks for {_describe(Kind.TIMER, timer.key, None)}"
        if timer is not None and timer.key == row.key:
            asks += f" with another due time ({_time(timer.due_us)} instead of {_time(int(row.fingerprint or 0))})"
            advice = ANOTHER_TIME + (MIXED_UP if any(parse_scopes(timer.key)) else "")
    else:
        asks = f"asks for {_describe(call.kind, call.key, call.name)}"
        if call.kind is row.kind and call.name == row.name:
            if call.key == row.key:
                other = next((one for one in open_calls if _asks_for(one, row)), None)
                asks += f" with another input ({call.fingerprint} instead of {row.fingerprint})"
                asks += "" if other is None else f", and for the recorded input as {other.key!r}"
                if other is not None or any(parse_scopes(call.key)):
                    advice = MIXED_UP
                if numbers_of(split(row.fingerprint)[1]):
                    advice = NUMBERED + MIXED_UP
            elif _asks_for(call, row):
                asks += f", with the input of row {row.seq}, under another key"
                advice = MIXED_UP
    if source is None and main is not None and not is_done:
        source = source_location(main.get_coro())
    recorded = _describe(row.kind, row.key, row.name)
    fork = "" if row.key is None else f"fork the execution from {row.key!r} on the code as it is, "
    return Diverged(
        f"The code does not match the journal: row {row.seq} is {recorded}, but the code {asks}"
        f"{f' ({source})' if source else ''}. {advice}"
        f"Bring the old code back, {fork}or cancel the execution.",
        seq=row.seq,
        recorded=side(row.kind, row.key, row.name),
        asked=None if call is None else side(call.kind, call.key, call.name),
        source=source,
    )


def stuck(loop: InnerLoop) -> Stuck:
    lines = [f"{task.get_name()} at {source_location(task.get_coro()) or '?'}" for task in loop.living_tasks()[:10]]
    why = (
        "A thread called into its event loop; put threaded work into a step."
        if loop.threads_seen
        else "It spins without end."
        if loop.ready
        else "No step, event, child or timer is outstanding, so nothing can wake it."
    )
    return Stuck(f"The workflow waits for ever. {why} Waiting: {', '.join(lines)}.")


def _describe(kind: Kind, key: str | None, name: str | None) -> str:
    words = f"{kind.value} {key!r}"
    return words if name is None or name == key else f"{words} of {name!r}"


def _asks_for(call: DurableCall, row: Row) -> bool:
    return (call.kind, call.name, call.fingerprint) == (row.kind, row.name, row.fingerprint)


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()


def side(kind: Kind, key: str | None, name: str | None) -> dict[str, object]:
    return {"kind": kind.value, "key": key, "name": name}
