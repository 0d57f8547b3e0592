"""Desk: traces. Spans come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from perdure.store.verbs import traces

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.wire.traces import Span

AT_ONCE = 500
"""Spans written in one go, so that others get their turn between."""


class Traces:
    """What callers may ask of traces."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def put(self, project_id: str, spans: Sequence[Span]) -> list[tuple[str, str]]:
        """Keep spans, each instead of what was sent before under its ids; answers those (by trace and own id) for which
        their trace has no room. Raises what kept any of them from being stored; all may be sent again then."""
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


def _parts(spans: Sequence[Span]) -> Iterator[dict[str, list[Span]]]:
    """The spans by trace, so many at once."""
    for first in range(0, len(spans), AT_ONCE):
        part: dict[str, list[Span]] = {}
        for span in spans[first : first + AT_ONCE]:
            part.setdefault(span.trace_id, []).append(span)
        yield part
