"""Event triggers: start a workflow from the events of a topic.

@workflow(trigger_on=EventTrigger("orders", batch_size=100, batch_timeout=5))
async def book(ctx: Context, batch: EventBatch) -> None: ...
"""

from __future__ import annotations

from datetime import timedelta

from perdure.wire.base.errors import BadValue
from perdure.wire.clock.triggers import BATCH_MAX, TIMEOUT_SECONDS_MAX, TriggerSpec


class EventTrigger:
    """Starts a workflow from the events of a topic.

    Each execution gets an `EventBatch` of `batch_size` events, or of fewer once the first has waited for
    `batch_timeout` (whole seconds). With a size of 1 and no time-out it gets a `TopicEvent`. Raises `BadValue` for a
    size or a time-out out of range.

        >>> EventTrigger("orders", batch_size=100, batch_timeout=5)
        EventTrigger('orders', batch_size=100, batch_timeout=5)
    """

    def __init__(self, topic: str, *, batch_size: int = 1, batch_timeout: int | timedelta | None = None) -> None:
        if isinstance(batch_timeout, timedelta):
            batch_timeout = int(batch_timeout.total_seconds())
        if not 1 <= batch_size <= BATCH_MAX:
            raise BadValue(f"batch_size must be 1 to {BATCH_MAX:,}, got {batch_size!r}.")
        if batch_timeout is not None and not 1 <= batch_timeout <= TIMEOUT_SECONDS_MAX:
            raise BadValue(f"batch_timeout must be 1 to {TIMEOUT_SECONDS_MAX:,} seconds, got {batch_timeout!r}.")
        self.topic = topic
        self.batch_size = batch_size
        self.batch_timeout = batch_timeout

    def spec(self, workflow_name: str) -> TriggerSpec:
        return TriggerSpec(workflow_name, self.topic, self.batch_size, self.batch_timeout)

    def __repr__(self) -> str:
        return f"EventTrigger({self.topic!r}, batch_size={self.batch_size}, batch_timeout={self.batch_timeout})"
