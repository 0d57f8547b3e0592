"""Merges the spans of a run that continued after waits.

A worker continues a waiting execution in a new span under the same parent. The new span names the span before as
`<type>.previous_span_id`, or continues the execution's last span with status `waiting`. Another span covers all pieces
as the parent, since readers expect a single run.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from perdure.wire.insight.traces import SpanValues, StoredSpan

_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_array: Final = msgspec.json.Decoder(list[Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
PREFIX: Final = "linked_"


def merge_runs(spans: Sequence[StoredSpan]) -> list[StoredSpan]:
    """Sort spans by start, adding a span before the pieces of each merged run."""
    by_id = {span.span_id: span for span in spans}
    in_order = sorted(spans, key=lambda span: (span.started_at_us, span.span_id))
    before: dict[str, str] = {}
    waiting: dict[tuple[str | None, str | None], StoredSpan | None] = {}
    for span in in_order:
        previous = by_id.get(span.said("previous_span_id") or "")
        if span.is_run:
            of = span.execution_id, span.parent_span_id
            previous = previous or waiting.get(of)
            waiting[of] = span if span.said("status") == "waiting" else None
        if previous is not None and previous.parent_span_id == span.parent_span_id and previous is not span:
            before[span.span_id] = previous.span_id
    runs: dict[str, list[StoredSpan]] = {}
    for span in in_order:
        first = _first(span.span_id, before)
        if first is not None:
            runs.setdefault(first, []).append(span)
    found = list(spans)
    parents: dict[str, str] = {}
    for first, pieces in runs.items():
        if len(pieces) > 1:
            whole = _whole(by_id[first], pieces)
            found.append(whole)
            parents.update((piece.span_id, whole.span_id) for piece in pieces)
    found = [replace(span, parent_span_id=parents[span.span_id]) if span.span_id in parents else span for span in found]
    found.sort(key=lambda span: (span.started_at_us, not span.span_id.startswith(PREFIX), span.span_id))
    return found


def _first(span_id: str, before: dict[str, str]) -> str | None:
    seen = {span_id}
    while span_id in before:
        span_id = before[span_id]
        if span_id in seen:
            return None
        seen.add(span_id)
    return span_id


def _whole(first: StoredSpan, pieces: Sequence[StoredSpan]) -> StoredSpan:
    attributes: dict[str, Raw] = {}
    events: list[Raw] = []
    said: dict[str, Any] = {}
    for piece in pieces:
        values = piece.values
        if values.attributes is not None:
            attributes |= _object(bytes(values.attributes))
        if values.events is not None:
            events += _array(bytes(values.events))
        for name in ("input", "output", "final_state"):
            said[name] = getattr(values, name) if getattr(values, name) is not None else said.get(name)
        for name in ("error", "initial_state"):
            said[name] = said.get(name) if said.get(name) is not None else getattr(values, name)
    ends = [piece.ended_at_us for piece in pieces]
    return replace(
        first,
        span_id=PREFIX + first.span_id,
        started_at_us=min(piece.started_at_us for piece in pieces),
        ended_at_us=None if pieces[-1].ended_at_us is None else max(end for end in ends if end is not None),
        values=SpanValues(
            Raw(_encode(attributes)) if attributes else None, Raw(_encode(events)) if events else None, **said
        ),
    )
