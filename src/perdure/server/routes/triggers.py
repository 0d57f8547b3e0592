"""Event triggers: topics whose events start workflows."""

from msgspec import Struct

from perdure.server.routes.executions import idempotency, page_limit
from perdure.server.routing import Call, Routes
from perdure.wire.public import DONE, Done
from perdure.wire.public_triggers import EventTriggersResponse, RegisterEventTriggerRequest, trigger_response
from perdure.wire.requests import TriggerSpec

routes = Routes("Event triggers")


@routes.post("/api/v1/event-triggers/register", contract=True, idempotent=True)
async def register_event_trigger(call: Call, body: RegisterEventTriggerRequest) -> Done:
    """Make the trigger of a workflow and a topic, or bring it up to date.

    A new one starts at the topic's end; one that is there goes on where it was. A deployment that is not the current
    one changes none that is there.
    """
    spec = TriggerSpec(body.workflow_id, body.event_topic, body.batch_size, body.batch_timeout_seconds, body.queue_name)
    await call.engine.triggers.register(call.project_id, body.deployment_id, spec, idempotency=idempotency(call))
    return DONE


class TriggersQuery(Struct, frozen=True):
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    limit: int = 100
    """1 to 1,000."""


@routes.get("/api/v1/event-triggers")
async def list_event_triggers(call: Call, query: TriggersQuery) -> EventTriggersResponse:
    """The project's event triggers, newest first."""
    page, cursor = await call.engine.triggers.list(call.project_id, query.cursor, page_limit(query.limit))
    return EventTriggersResponse([trigger_response(one, waiting) for one, waiting in page], cursor)


@routes.delete("/api/v1/event-triggers/{trigger_id}")
async def delete_event_trigger(call: Call, trigger_id: str) -> None:
    """Delete an event trigger; executions that it started stay."""
    await call.engine.triggers.delete(call.project_id, trigger_id)
