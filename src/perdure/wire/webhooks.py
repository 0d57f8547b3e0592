"""Webhooks: their records and operations."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import field
from msgspec.structs import replace

from perdure.wire.access import Role
from perdure.wire.fields import Int32, Name, Time, Uuid, between, id_check, text_check
from perdure.wire.operation import Noun, Operation
from perdure.wire.record import Record, derived

LIST_MAX: Final = 500

WebhookId = Annotated[str, id_check("webhook")]


# --- records -------------------------------------------------------------------------------------------------------


class Webhook(Record, frozen=True):
    """A URL that hears of the ends of executions that have no parent."""

    shown_as: ClassVar[str] = "WebhookResponse"

    id: Uuid
    url: str
    """Only admins read it whole; for others the path, which may hold a secret, is left out."""
    workflow_id: str | None
    """The workflow whose ends it hears of; null: all."""
    description: str | None
    created_at_us: Time = field(name="created_at")

    def without_secrets(self) -> "Webhook":
        return replace(self, url=_origin(self.url))


class WebhookList(Record, frozen=True):
    """All of the project, newest first."""

    shown_as: ClassVar[str] = "WebhooksResponse"

    webhooks: list[Webhook]


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up."""


class Delivery(Record, frozen=True):
    """What one URL is told, or was told, of one end."""

    shown_as: ClassVar[str] = "DeliveryResponse"

    execution_id: Uuid
    webhook_id: str | None
    """Null for the URL that came with the execution."""
    url: str
    """Without its path for a caller who could not have given it: admins give those of webhooks, and the role `write`
    those that come with executions."""
    state: DeliveryState
    tries: Int32
    created_at_us: Time = field(name="created_at")
    tried_at_us: Time | None = field(name="tried_at")
    next_at_us: Time | None = field(name="next_try_at")
    status: Int32 | None
    """Of the last answer; null when none came."""
    answer: str | None
    """The beginning of the last answer, or why there is none. Null where the URL is not shown whole."""

    @derived
    def id(self) -> str:
        """The message's `webhook-id`: the same however often it is sent."""
        return delivery_id(self.execution_id, self.webhook_id)

    def without_secrets(self) -> "Delivery":
        """As callers see it who could not have given its URL."""
        return replace(self, url=_origin(self.url), answer=None)


class DeliveryPage(Record, frozen=True):
    """A page, newest first."""

    shown_as: ClassVar[str] = "DeliveriesResponse"

    deliveries: list[Delivery]
    next_cursor: str | None


def delivery_id(execution_id: str, webhook_id: str | None) -> str:
    """The id of the message that tells a URL of an end."""
    return f"{execution_id}.{webhook_id}" if webhook_id else execution_id


def _origin(url: str) -> str:
    """A URL without its path and query. They may hold a secret: chats give out such addresses."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}/…"


# --- operations ----------------------------------------------------------------------------------------------------


webhooks: Final = Noun("Webhooks")


@webhooks.get("/api/v1/webhooks")
class ListWebhooks(Operation[WebhookList], frozen=True):
    """The URLs that hear of the ends of this project's executions."""


@webhooks.post("/api/v1/webhooks", role=Role.ADMIN, idempotent=True)
class CreateWebhook(Operation[Webhook], frozen=True):
    """Have a URL hear of the ends of executions that have no parent, from now on.

    The same URL and workflow again change nothing.
    """

    url: str
    """https and a public address, unless the server's setting `outbound_hosts` names its host."""
    workflow_id: Name | None = None
    """Only of this workflow; null: of all."""
    description: Annotated[str, text_check(1_024)] | None = None


@webhooks.delete("/api/v1/webhooks/{webhook_id}", role=Role.ADMIN)
class DeleteWebhook(Operation[None], frozen=True):
    """Tell a URL nothing more. What was to be sent to it already fails when it is due."""

    webhook_id: WebhookId


@webhooks.get("/api/v1/webhooks/deliveries")
class ListDeliveries(Operation[DeliveryPage], frozen=True):
    """What was sent, or is to be, and what came of it; newest first."""

    execution_id: Annotated[str, id_check("execution")] | None = None
    webhook_id: WebhookId | None = None
    state: DeliveryState | None = None
    cursor: str | None = None
    limit: Annotated[int, between(1, LIST_MAX)] = 100


@webhooks.post("/api/v1/webhooks/deliveries/{delivery_id}/redeliver")
class Redeliver(Operation[Delivery], frozen=True):
    """Send a message again now, under the same id, whatever became of it."""

    delivery_id: str
