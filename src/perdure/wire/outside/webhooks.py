import re
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import field
from msgspec.structs import replace

from perdure.wire.base.access import Role
from perdure.wire.base.fields import (
    ExecutionId,
    Int32,
    Name,
    PageCursor,
    Time,
    Uuid,
    between,
    id_check,
    text_check,
)
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record, derived

LIST_MAX: Final = 500

WebhookId = Annotated[str, id_check("webhook")]


class Webhook(Record, frozen=True):
    """A URL for notifications of the ends of root executions."""

    shown_as: ClassVar[str] = "WebhookResponse"

    id: Uuid
    url: str
    """The URL; without the path, which may hold a secret, except for admins."""
    workflow_id: str | None
    """Null: of all workflows."""
    description: str | None
    created_at_us: Time = field(name="created_at")

    def without_secrets(self) -> "Webhook":
        return replace(self, url=origin(self.url))


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """The server gave up."""


class Delivery(Record, frozen=True):
    shown_as: ClassVar[str] = "DeliveryResponse"

    execution_id: Uuid
    webhook_id: str | None
    """Null for a URL from the start of the execution."""
    url: str
    """Callers who may not set the URL see it without its path."""
    state: DeliveryState
    tries: Int32
    created_at_us: Time = field(name="created_at")
    tried_at_us: Time | None = field(name="tried_at")
    next_at_us: Time | None = field(name="next_try_at")
    status: Int32 | None
    """Null if no answer came."""
    answer: str | None
    """The beginning of the last answer, or the reason for a missing answer. Null without the URL's path."""

    @derived
    def id(self) -> str:
        """The message's `webhook-id`, the same for each try."""
        return delivery_id(self.execution_id, self.webhook_id)

    def without_secrets(self) -> "Delivery":
        return replace(self, url=origin(self.url), answer=None)


def delivery_id(execution_id: str, webhook_id: str | None) -> str:
    return f"{execution_id}.{webhook_id}" if webhook_id else execution_id


def origin(url: str) -> str:
    """Path and query may hold a secret: chat services give out such URLs."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}/…"


webhooks: Final = Noun("Webhooks")


@webhooks.get("/api/v1/webhooks", under="webhooks", reply="WebhooksResponse")
class ListWebhooks(Operation[Listed[Webhook]], frozen=True):
    """Webhooks of the project, newest first."""


@webhooks.post("/api/v1/webhooks", role=Role.ADMIN, idempotent=True)
class CreateWebhook(Operation[Webhook], frozen=True):
    """Create a webhook.

    The server notifies the URL when an execution without a parent ends. The same URL and workflow again change nothing.
    """

    url: str
    """Must be https with a public address, unless the setting `outbound_hosts` names the host."""
    workflow_id: Name | None = None
    """Null: of all workflows."""
    description: Annotated[str, text_check(1_024)] | None = None


@webhooks.delete("/api/v1/webhooks/{webhook_id}", role=Role.ADMIN)
class DeleteWebhook(Operation[None], frozen=True):
    """Delete a webhook.

    The server sends nothing more. Pending deliveries fail at their due time.
    """

    webhook_id: WebhookId


@webhooks.get("/api/v1/webhooks/deliveries", under="deliveries", reply="DeliveriesResponse", cursor_required=True)
class ListDeliveries(Operation[Listed[Delivery]], frozen=True):
    """Sent and pending messages with outcomes, newest first."""

    execution_id: ExecutionId | None = None
    webhook_id: WebhookId | None = None
    state: DeliveryState | None = None
    cursor: PageCursor | None = None
    limit: Annotated[int, between(1, LIST_MAX)] = 100


@webhooks.post(
    "/api/v1/webhooks/deliveries/{delivery_id}/redeliver", repeated="sends the message again, under the same id"
)
class Redeliver(Operation[Delivery], frozen=True):
    """Send a message again now, in any state, under the same id."""

    delivery_id: str
