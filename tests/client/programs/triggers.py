"""Workflows that events start, beside those of `app`."""
# mypy: ignore-errors

from typing import Any

from app import note
from polos import WorkflowContext, workflow


@workflow(id="triggered", trigger_on_event="orders")
async def triggered(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"triggered {payload['data']['n']}")
    return payload


@workflow(id="triggered_batch", trigger_on_event="many", batch_size=3, batch_timeout_seconds=60)
async def triggered_batch(ctx: WorkflowContext, payload: dict[str, Any]):
    numbers = [event["data"]["n"] for event in payload["events"]]
    note(f"batch {numbers}")
    return numbers


@workflow(id="triggered_late", trigger_on_event="few", batch_size=3, batch_timeout_seconds=1)
async def triggered_late(ctx: WorkflowContext, payload: dict[str, Any]):
    numbers = [event["data"]["n"] for event in payload["events"]]
    note(f"late {numbers}")
    return numbers
