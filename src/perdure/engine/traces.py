"""The service of traces: spans that were sent, and spans of journals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from perdure.engine.cursors import read_cursor, write_cursor
from perdure.engine.span_merging import merge_runs
from perdure.store.verbs import trace_queries, traces
from perdure.store.verbs.trace_queries import NEWEST, TraceFilters, TracePlace, TraceRoot
from perdure.wire.errors import BadRequest
from perdure.wire.fields import is_uuid
from perdure.wire.journal_spans import journal_spans, trace_id_of
from perdure.wire.status import Phase
from perdure.wire.traces import StoredSpan

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

AT_ONCE = 500
"""Spans read or written before other requests get a turn."""
LIST_MAX = 500
OFFSET_MAX = 10_000


class WholeTrace(NamedTuple):
    """Spans by start, and the phase of the execution, if there is one."""

    spans: list[StoredSpan]
    phase: Phase | None


class Traces:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def at_home(self, project_id: str, spans: Sequence[StoredSpan]) -> list[StoredSpan]:
        """Move spans of executions, and spans below them, to the trace of their root execution.

        With a worker's web framework, an execution's run belongs to the request that brought it, and each piece between
        two waits has another trace. Two kinds stay: spans of a root execution whose caller set its trace, and spans
        that are neither about an execution nor below such a span.
        """
        of = [await _in_turn(n, span) for n, span in enumerate(spans)]
        ids = sorted({id for id in of if id is not None and is_uuid(id)})
        if not ids:
            return list(spans)
        roots = await self._engine.store.read(trace_queries.homes(project_id=project_id, ids=ids))
        places = {(span.trace_id, span.span_id): n for n, span in enumerate(spans)}
        home: dict[int, str | None] = {n: roots.get(id) for n, id in enumerate(of) if id is not None}
        moved: list[StoredSpan] = []
        for n, span in enumerate(spans):
            above: int | None = n
            way: list[int] = []
            while above is not None and above not in home:
                home[above] = None  # a cycle of parents
                way.append(above)
                above = places.get((span.trace_id, spans[above].parent_span_id or ""))
            root_id = None if above is None else home[above]
            home.update(dict.fromkeys(way, root_id))
            if root_id is None or span.trace_id == trace_id_of(root_id):
                moved.append(span)
            else:  # its parent is elsewhere
                parent = None if of[n] == root_id and span.is_run else span.parent_span_id
                moved.append(replace(span, trace_id=trace_id_of(root_id), parent_span_id=parent))
        return moved

    async def put(self, project_id: str, spans: Sequence[StoredSpan]) -> list[tuple[str, str]]:
        """Each replaces an earlier one with its ids. Returns the (trace id, span id) of spans for which their trace has
        no room. Raises if any failed; then all may be sent again."""
        now_us = self._engine.clock.now_us()
        left_out: list[tuple[str, str]] = []
        for part in _parts(spans):
            answers = await self._engine.store.write_all(
                [
                    traces.put_spans(project_id=project_id, trace_id=trace_id, spans=members, now_us=now_us)
                    for trace_id, members in part.items()
                ]
            )
            for trace_id, answer in zip(part, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                left_out.extend((trace_id, span_id) for span_id in answer)
        return left_out

    async def list(
        self, project_id: str, filters: TraceFilters, cursor: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[TraceRoot], str | None]:
        """Latest end of the root first, with the next cursor. Raises BadRequest."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX}, got {limit}.")
        if not 0 <= offset <= OFFSET_MAX:
            raise BadRequest(f"`offset` must be 0 to {OFFSET_MAX:,}, got {offset}; ask for a time range instead.")
        before = NEWEST if cursor is None else read_cursor(cursor, TracePlace, "newest")
        page, following = await self._engine.store.scan(
            trace_queries.list_traces(project_id=project_id, filters=filters, before=before, limit=limit, offset=offset)
        )
        return page, None if following is None else write_cursor(following)

    async def get(self, project_id: str, trace_id: str) -> WholeTrace:
        """Empty if it is unknown.

        If a worker's spans describe an execution (`<type>.execution_id`), its journal adds none.
        """
        found = await self._engine.store.scan(trace_queries.get_trace(project_id=project_id, trace_id=trace_id))
        described = {id for span in found.spans if (id := span.execution_id) is not None}
        spans = [*found.spans]
        for execution in found.executions:
            if execution.id not in described:
                spans += journal_spans(execution)
        return WholeTrace(merge_runs(spans), found.phase)


async def _in_turn(n: int, span: StoredSpan) -> str | None:
    """The execution that a span names. Yields to other requests between many spans."""
    if n % AT_ONCE == AT_ONCE - 1:
        await asyncio.sleep(0)
    return span.execution_id


def _parts(spans: Sequence[StoredSpan]) -> Iterator[dict[str, list[StoredSpan]]]:
    """Spans by trace, a limited number at a time."""
    for first in range(0, len(spans), AT_ONCE):
        part: dict[str, list[StoredSpan]] = {}
        for span in spans[first : first + AT_ONCE]:
            part.setdefault(span.trace_id, []).append(span)
        yield part
