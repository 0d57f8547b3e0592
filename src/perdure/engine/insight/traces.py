"""The service of traces: sent spans, and spans of journals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.insight.span_merging import merge_runs
from perdure.store.verbs.base.pages import Place
from perdure.store.verbs.insight import trace_queries, traces
from perdure.store.verbs.insight.trace_queries import NEWEST
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import is_uuid
from perdure.wire.base.operation import Listed
from perdure.wire.insight.journal_spans import journal_spans, trace_id_of
from perdure.wire.insight.traces import (
    SPANS_MAX,
    GetTraceById,
    GetTraces,
    PutSpans,
    RejectedSpan,
    SpansReply,
    StoredSpan,
    Trace,
    TraceSummary,
    read_span,
    to_trace,
)

AT_ONCE = 500
"""Spans handled before other requests get a turn."""
DECODED_AT_ONCE = 200
FULL = f"span: its trace has {SPANS_MAX:,} spans already"


class Traces(Service):
    @serves(PutSpans)
    async def put_spans(self, scope: Scope, op: PutSpans) -> SpansReply:
        good: list[tuple[int, StoredSpan]] = []
        rejected: list[RejectedSpan] = []
        for index, raw in enumerate(op.spans):
            if index % DECODED_AT_ONCE == DECODED_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                good.append((index, read_span(raw)))
            except BadValue as error:
                rejected.append(RejectedSpan(index, error.message))
        home = await self._at_home(scope.project_id, [span for _, span in good])
        spans = {(span.trace_id, span.span_id): (index, span) for (index, _), span in zip(good, home, strict=True)}
        left_out = await self.put(scope.project_id, [span for _, span in spans.values()])
        rejected.extend(RejectedSpan(spans[ids][0], FULL) for ids in left_out)
        return SpansReply(len(op.spans) - len(rejected), rejected)

    async def _at_home(self, project_id: str, spans: Sequence[StoredSpan]) -> list[StoredSpan]:
        """Move spans of executions, and spans below, to the trace of the root execution.

        A web framework puts each piece between two waits into another request's trace. Spans of a root execution whose
        caller set the trace stay, as do spans not about an execution.
        """
        of = [await _in_turn(n, span) for n, span in enumerate(spans)]
        ids = sorted({id for id in of if id is not None and is_uuid(id)})
        if not ids:
            return list(spans)
        roots = await self.read(trace_queries.homes(project_id=project_id, ids=ids))
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
        """Store spans; a span replaces an earlier span with the same ids. Returns the (trace id, span id) of spans
        without room. Raises if any span failed; then all may be sent again."""
        now_us = self.now_us()
        left_out: list[tuple[str, str]] = []
        for part in _parts(spans):
            answers = await self.write_all(
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

    @serves(GetTraces)
    async def list(self, scope: Scope, op: GetTraces) -> Listed[TraceSummary]:
        before = NEWEST if op.cursor is None else read_cursor(op.cursor, Place, "newest")
        page, following = await self.scan(
            trace_queries.list_traces(project_id=scope.project_id, wanted=op, before=before)
        )
        return Listed(page, None if following is None else write_cursor(following))

    @serves(GetTraceById)
    async def get(self, scope: Scope, op: GetTraceById) -> Trace:
        """Read a trace. If a worker's spans describe an execution (`<type>.execution_id`), its journal adds none."""
        found = trace_queries.get_trace(project_id=scope.project_id, trace_id=op.trace_id)
        spans, executions, phase = await self.scan(found)
        described = {id for span in spans if (id := span.execution_id) is not None}
        for execution in executions:
            if execution.id not in described:
                spans += journal_spans(execution)
        return to_trace(op.trace_id, merge_runs(spans), phase)


async def _in_turn(n: int, span: StoredSpan) -> str | None:
    """Yields to other requests between many spans."""
    if n % AT_ONCE == AT_ONCE - 1:
        await asyncio.sleep(0)
    return span.execution_id


def _parts(spans: Sequence[StoredSpan]) -> Iterator[dict[str, list[StoredSpan]]]:
    for first in range(0, len(spans), AT_ONCE):
        part: dict[str, list[StoredSpan]] = {}
        for span in spans[first : first + AT_ONCE]:
            part.setdefault(span.trace_id, []).append(span)
        yield part
