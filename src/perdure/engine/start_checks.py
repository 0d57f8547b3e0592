"""The check of an execution to start."""

from perdure.engine.addresses import target
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name, check_text
from perdure.wire.requests import StartItem
from perdure.wire.starts import check_options


def check_item(item: StartItem) -> None:
    """Raises BadValue with the field."""
    check_name(item.workflow_id, where="workflow_id")
    for name in ("deployment_id", "queue_name", "concurrency_key", "session_id", "user_id", "key", "step_key"):
        value = getattr(item, name)
        if value is not None:
            check_name(value, where=name, max_bytes=KEY_BYTES_MAX)
    check_json(bytes(item.payload), where="payload")
    for name in ("initial_state", "channel_context"):
        given = getattr(item, name)
        if given is not None:
            check_json(bytes(given), where=name)
    if item.otel_traceparent is not None:
        check_text(item.otel_traceparent, where="otel_traceparent", max_bytes=KEY_BYTES_MAX)
    check_options(item)
    if item.webhook_url is not None:
        target(item.webhook_url, "webhook_url")
