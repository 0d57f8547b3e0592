"""Streams of executions, and idempotency."""

import hashlib
from collections.abc import AsyncGenerator
from heapq import merge
from typing import Final

import msgspec
from msgspec import Struct

from perdure.server.routing import Call, Routes
from perdure.server.streams import PIECE_BYTES, EventStream, frame
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, PerdureError
from perdure.wire.executions import LogLine, Row
from perdure.wire.fields import checked_id
from perdure.wire.record import writer
from perdure.wire.status import STATUS, Phase

STREAM_PAGE: Final = 200
LOOK_SECONDS: Final = 1.0

routes = Routes("Executions")


def idempotency(call: Call) -> Idempotency | None:
    """Two requests are the same if their paths and bytes are."""
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    check_name(key, where="header Idempotency-Key", max_bytes=KEY_BYTES_MAX)
    return Idempotency(call.route.path, key, hashlib.sha256(call.raw_path + b"\n" + call.body).hexdigest())


class StreamQuery(Struct, frozen=True):
    last_event_id: str | None = None
    """Go on after this id. For clients that cannot set the header."""


@routes.get("/api/v1/executions/{execution_id}/events", headers=("Last-Event-ID",))
async def stream_execution(call: Call, execution_id: str, query: StreamQuery) -> EventStream:
    """Follow an execution as server-sent events: `row` (of the journal), `log`, and `end` when it is final."""
    execution_id = checked_id(execution_id)
    cursor = call.header(b"last-event-id") or query.last_event_id
    after, after_log = _cursor(cursor) if cursor else (0, 0)
    await call.engine.executions.how_ended(call.project_id, execution_id)  # raises NotFound
    return EventStream(_follow(call, execution_id, after, after_log))


def _cursor(text: str) -> tuple[int, int]:
    rows, dash, logs = text.partition("-")
    if not dash or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (rows, logs)):
        raise BadRequest(f"Last-Event-ID {text!r} is not one of this stream's; leave it out to start at the beginning.")
    return int(rows), int(logs)


def end_frame(execution_id: str, phase: Phase, error: str | None, cursor: str) -> bytes:
    end = {"id": execution_id, "status": STATUS[phase], "phase": phase, "error": error}
    return frame(msgspec.json.encode(end), id=cursor, event="end")


async def _follow(call: Call, execution_id: str, after: int, after_log: int) -> AsyncGenerator[bytes, None]:
    executions = call.engine.executions
    while True:
        cursor = executions.watch_cursor(execution_id)
        try:
            # First, because a final execution has all its rows.
            ended = await executions.how_ended(call.project_id, execution_id)
            after, after_log, piece = await _frames(call, execution_id, after, after_log)
        except PerdureError:
            return  # the execution was deleted, or the store is closed
        if piece:
            yield piece
        elif ended is not None:
            yield end_frame(execution_id, Phase(ended.phase), ended.error, f"{after}-{after_log}")
            return
        else:
            await executions.watch(execution_id, cursor, call.engine.own_look(LOOK_SECONDS))


async def _frames(call: Call, execution_id: str, after: int, after_log: int) -> tuple[int, int, bytes]:
    executions, project_id = call.engine.executions, call.project_id
    rows, _ = await executions.journal(project_id, execution_id, after, STREAM_PAGE, bytes_max=PIECE_BYTES)
    lines = await executions.logs(project_id, execution_id, after_log, STREAM_PAGE)
    frames: list[bytes] = []
    to_row, to_line = writer(Row), writer(LogLine)
    shown = merge(
        ((row.at_us, 0, row.seq, "row", to_row(row)) for row in rows),
        ((line.at_us, 1, line.n, "log", to_line(line)) for line in lines),
        key=lambda item: item[:3],
    )
    for _, which, number, event, struct in shown:
        after, after_log = (number, after_log) if which == 0 else (after, number)
        frames.append(frame(msgspec.json.encode(struct), id=f"{after}-{after_log}", event=event))
    return after, after_log, b"".join(frames)
