"""Checks of starts and of entries for transcripts."""

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from perdure.engine.base.addresses import target
from perdure.wire.agents.transcripts import check_messages
from perdure.wire.base.codec import KEY_BYTES_MAX, check_json, check_name, check_raw, check_text
from perdure.wire.runs.requests import AppendMessages, StartItem, Summarize, TranscriptEntry
from perdure.wire.runs.starts import check_options

_NAMES: Final = ("deployment_id", "queue_name", "concurrency_key", "session_id", "user_id", "key", "step_key")
_names_of: Final[Callable[[StartItem], tuple[str | None, ...]]] = attrgetter(*_NAMES)


def check_item(item: StartItem, *, encoded: bool = False) -> None:
    """Raises BadValue with the field. `encoded`: the SDK of this process has made the payload."""
    check_name(item.workflow_id, where="workflow_id")
    names = _names_of(item)
    if names.count(None) < len(names):
        for name, value in zip(_NAMES, names, strict=True):
            if value is not None:
                check_name(value, where=name, max_bytes=KEY_BYTES_MAX)
    if not encoded:
        check_raw(item.payload, where="payload")
    if item.initial_state is not None:
        check_raw(item.initial_state, where="initial_state")
    if item.channel_context is not None:
        check_raw(item.channel_context, where="channel_context")
    if item.otel_traceparent is not None:
        check_text(item.otel_traceparent, where="otel_traceparent", max_bytes=KEY_BYTES_MAX)
    check_options(item)
    if item.webhook_url is not None:
        target(item.webhook_url, "webhook_url")


def check_transcript_entry(entry: TranscriptEntry) -> None:
    check_name(entry.session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
    if isinstance(entry, AppendMessages):
        check_messages(entry.messages, "messages")
    elif isinstance(entry, Summarize):
        check_json(bytes(entry.summary), where="summary")
