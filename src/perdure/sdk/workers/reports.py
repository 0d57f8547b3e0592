from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from perdure.sdk.replay.calls import STEP, STEP_FAILED
from perdure.sdk.workers.run_ends import is_over
from perdure.wire.base.errors import Forbidden, NotFound, PerdureError, Unauthorized
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    AppendMessages,
    Complete,
    End,
    Entry,
    ItemReply,
    OpenWait,
    Publish,
    Release,
    ReportItem,
    StartChild,
    StepDone,
    Summarize,
    TimerFired,
)

LAST_NUMBER = 1 << 40
"""A number after every report, and every row."""


def hand_back(execution_id: str, attempt: int) -> ReportItem:
    return ReportItem(execution_id, attempt, LAST_NUMBER, LAST_NUMBER, end=Release())


def acknowledgement(execution_id: str, attempt: int) -> ReportItem:
    """An empty report, which fetches no rows."""
    return ReportItem(execution_id, attempt, 0, LAST_NUMBER)


def is_refused(error: PerdureError) -> bool:
    """True if an error concerns the reported content, not the worker or a proxy."""
    return not (
        error.retryable or type(error) is PerdureError or isinstance(error, (Unauthorized, Forbidden, NotFound))
    )


def entry_size(entry: Entry) -> int:
    """Approximate bytes on the wire."""
    if isinstance(entry, StepDone):
        return 200 + memoryview(entry.value).nbytes
    if isinstance(entry, StartChild):
        return 400 + memoryview(entry.item.payload).nbytes
    if isinstance(entry, Publish):
        return 200 + sum(100 + memoryview(one.data).nbytes for one in entry.events)
    if isinstance(entry, AppendMessages):
        return 200 + sum(100 + memoryview(one).nbytes for one in entry.messages)
    if isinstance(entry, Summarize):
        return 200 + memoryview(entry.summary).nbytes
    if isinstance(entry, OpenWait) and entry.answer_schema is not None:
        return 200 + memoryview(entry.answer_schema).nbytes + memoryview(entry.data or b"").nbytes
    data = getattr(entry, "data", None)
    return 200 if data is None else 200 + memoryview(data).nbytes


def item_size(item: ReportItem) -> int:
    """See `entry_size`."""
    size = 200
    for entry in item.entries:
        size += entry_size(entry)
    for one in item.stream:
        size += 100 + memoryview(one.data).nbytes
    result = getattr(item.end, "result", None)
    return size if result is None else size + memoryview(result).nbytes


def returns_step(item: ReportItem) -> bool:
    """Whether the worker reports a step together with the end returning the step's outcome."""
    return type(item.end) is Complete and item.end.returns_step


def drop_schemas(items: Sequence[ReportItem]) -> bool:
    """Take schemas of answers out of the items, as servers of earlier releases refuse them. False without schemas."""
    found = False
    for item in items:
        for n, entry in enumerate(item.entries):
            if isinstance(entry, OpenWait) and entry.answer_schema is not None:
                item.entries[n] = structs.replace(entry, answer_schema=None)
                found = True
    return found


def cut(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    room = REPLY_BYTES_MAX
    for n, entry in enumerate(entries):
        room -= entry_size(entry)
        if room < 0 and n:
            return entries[:n], entries[n:]
    return entries, []


def leaving(entries: list[Entry], end: End | None) -> tuple[list[Entry], list[Entry], End | None]:
    """The entries and the end of the next item, with the entries for a later one."""
    if is_over(end):
        # Branches that still run end with the workflow. Their calls were never promised.
        entries = [entry for entry in entries if type(entry) is StepDone]
    rest: list[Entry] = []
    if len(entries) > 1:
        entries, rest = cut(entries)
    return entries, rest, None if rest else end


def merge(item: ReportItem, reply: ItemReply) -> list[Row]:
    """The reply's rows and the rows of the item's steps and timers, in order."""
    rows = reply.rows
    if reply.more:  # further rows come first, and the item's own with them
        return rows
    own: list[Row] = []
    for entry, seq in zip(item.entries, reply.accepted, strict=False):
        if not seq:
            continue
        if type(entry) is StepDone:
            own.append(
                Row(
                    seq=seq,
                    at_us=reply.at_us,
                    kind=STEP if entry.last else STEP_FAILED,
                    attempt=item.attempt,
                    key=entry.key,
                    name=entry.name,
                    fingerprint=entry.fingerprint,
                    ok=entry.ok,
                    value=entry.value,
                    started_at_us=entry.started_at_us,
                    tries=entry.tries,
                )
            )
        elif type(entry) is TimerFired:
            due = fingerprint_of_timer(entry.at_us)
            own.append(Row(seq, reply.at_us, Kind.TIMER, item.attempt, entry.key, fingerprint=due))
    if not rows:
        return own
    return sorted([*rows, *own], key=lambda row: row.seq)
