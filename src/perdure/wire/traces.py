"""Spans: what happened when within a trace, as the store keeps them."""

from typing import Final

from msgspec import Raw, Struct

from perdure.wire.records import MaybeRaw

SPAN_BYTES_MAX: Final = 1 << 20
"""The largest span, as JSON."""
SPANS_MAX: Final = 10_000
"""The most spans of one trace, and of one request."""


class SpanValues(Struct, frozen=True, omit_defaults=True):
    """What a span carries, as JSON byte for byte; JSON null counts as nothing."""

    attributes: MaybeRaw = None
    """An object."""
    events: MaybeRaw = None
    """An array."""
    input: MaybeRaw = None
    output: MaybeRaw = None
    error: MaybeRaw = None
    initial_state: MaybeRaw = None
    final_state: MaybeRaw = None


NOTHING: Final = SpanValues()


class Span(Struct, frozen=True):
    """One span. Ids are lower-case hex where they come from OpenTelemetry; a span id may be any short text."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    span_type: str
    started_at_us: int
    ended_at_us: int | None
    values: SpanValues = NOTHING

    @property
    def failed(self) -> bool:
        """Whether its error is an object."""
        return is_object(self.values.error)


def is_object(value: Raw | None) -> bool:
    """Whether a JSON value is an object."""
    return value is not None and bytes(value).lstrip().startswith(b"{")


def is_array(value: Raw | None) -> bool:
    """Whether a JSON value is an array."""
    return value is not None and bytes(value).lstrip().startswith(b"[")
