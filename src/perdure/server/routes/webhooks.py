"""Who hears of the ends of executions, and what became of each message."""

from msgspec import Struct

from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.wire.access import Role
from perdure.wire.public_webhooks import (
    CreateWebhookRequest,
    DeliveriesResponse,
    DeliveryResponse,
    WebhookResponse,
    WebhooksResponse,
    delivery_response,
    webhook_response,
)
from perdure.wire.webhooks import Delivery, DeliveryState

routes = Routes("Webhooks")


class DeliveriesQuery(Struct, frozen=True):
    execution_id: str | None = None
    webhook_id: str | None = None
    state: DeliveryState | None = None
    cursor: str | None = None
    limit: int = 100


@routes.get("/api/v1/webhooks")
async def list_webhooks(call: Call) -> WebhooksResponse:
    """The URLs that hear of the ends of this project's executions."""
    whole = call.has_role(Role.ADMIN)
    found = await call.engine.webhooks.list(call.project_id)
    return WebhooksResponse([webhook_response(one, whole=whole) for one in found])


@routes.post("/api/v1/webhooks", role=Role.ADMIN, idempotent=True)
async def create_webhook(call: Call, body: CreateWebhookRequest) -> WebhookResponse:
    """Have a URL hear of the ends of executions that have no parent, from now on."""
    made = await call.engine.webhooks.make(
        call.project_id,
        body.url,
        workflow_id=body.workflow_id,
        description=body.description,
        idempotency=idempotency(call),
    )
    return webhook_response(made, whole=True)


@routes.delete("/api/v1/webhooks/{webhook_id}", role=Role.ADMIN)
async def delete_webhook(call: Call, webhook_id: str) -> None:
    """Tell a URL nothing more. What was to be sent to it already fails when it is due."""
    await call.engine.webhooks.delete(call.project_id, webhook_id)


@routes.get("/api/v1/webhooks/deliveries")
async def list_deliveries(call: Call, query: DeliveriesQuery) -> DeliveriesResponse:
    """What was sent, or is to be, and what came of it; newest first."""
    found, cursor = await call.engine.webhooks.deliveries(
        call.project_id,
        execution_id=query.execution_id,
        webhook_id=query.webhook_id,
        state=query.state,
        cursor=query.cursor,
        limit=query.limit,
    )
    return DeliveriesResponse([_shown(call, one) for one in found], cursor)


@routes.post("/api/v1/webhooks/deliveries/{delivery_id}/redeliver")
async def redeliver(call: Call, delivery_id: str) -> DeliveryResponse:
    """Send a message again now, under the same id, whatever became of it."""
    return _shown(call, await call.engine.webhooks.redeliver(call.project_id, delivery_id))


def _shown(call: Call, one: Delivery) -> DeliveryResponse:
    """As much of a delivery as the caller's role could have given it."""
    giver = Role.ADMIN if one.webhook_id else Role.WRITE
    return delivery_response(one, whole=call.has_role(giver))
