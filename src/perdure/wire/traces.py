"""Spans: timed parts of a trace, as the store keeps them."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from perdure.wire.records import MaybeRaw

SPAN_BYTES_MAX: Final = 1 << 20
"""The largest span, as JSON."""
SPANS_MAX: Final = 10_000
"""The most spans of one trace, and of one request."""
RUNS: Final = frozenset({"workflow", "agent", "tool"})
"""Types of spans that cover a whole execution."""
_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode


class SpanValues(Struct, frozen=True, omit_defaults=True):
    """A span's values as JSON, byte for byte; JSON null counts as missing."""

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


class StoredSpan(Struct, frozen=True):
    """One span. Ids from OpenTelemetry are lower-case hex; a span id may be any short text."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    span_type: str
    started_at_us: int
    ended_at_us: int | None
    values: SpanValues = NOTHING

    def said(self, name: str) -> str | None:
        """The attribute `<type>.<name>`, which a worker sets about its execution; None if it is not a text."""
        attributes = self.values.attributes
        if attributes is None or f".{name}".encode() not in bytes(attributes):
            return None
        value = _object(bytes(attributes)).get(f"{self.span_type}.{name}")
        return None if value is None or not bytes(value).startswith(b'"') else str(msgspec.json.decode(value))

    @property
    def execution_id(self) -> str | None:
        """The execution that the worker names."""
        id = self.said("execution_id")
        return None if id is None else id.lower()

    @property
    def is_run(self) -> bool:
        """Whether it covers an execution, or its piece between two waits."""
        return self.span_type in RUNS and self.said("execution_id") is not None

    @property
    def failed(self) -> bool:
        """Whether its error is an object."""
        return is_object(self.values.error)


def is_object(value: Raw | None) -> bool:
    return value is not None and bytes(value).lstrip().startswith(b"{")


def is_array(value: Raw | None) -> bool:
    return value is not None and bytes(value).lstrip().startswith(b"[")
