"""The public API's shapes of webhooks; all of it added to the contract."""

import re

from msgspec import Struct

from perdure.wire.public import Int32, Time, Uuid, rfc3339
from perdure.wire.webhooks import Delivery, DeliveryState, Webhook


class CreateWebhookRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Who hears of ends. The same URL and workflow again change nothing."""

    url: str
    """https and a public address, unless the server's setting `outbound_hosts` names its host."""
    workflow_id: str | None = None
    """Only of this workflow; null: of all."""
    description: str | None = None


class WebhookResponse(Struct, frozen=True):
    """A URL that hears of the ends of executions that have no parent."""

    id: Uuid
    url: str
    """Only admins read it whole; for others the path, which may hold a secret, is left out."""
    workflow_id: str | None
    description: str | None
    created_at: Time


class WebhooksResponse(Struct, frozen=True):
    """All of the project, newest first."""

    webhooks: list[WebhookResponse]


class DeliveryResponse(Struct, frozen=True):
    """What one URL is told, or was told, of one end."""

    id: str
    """The message's `webhook-id`: the same however often it is sent."""
    execution_id: Uuid
    webhook_id: str | None
    """Null for the URL that came with the execution."""
    url: str
    """Without its path for a caller who could not have given it: admins give those of webhooks, and the role `write`
    those that come with executions."""
    state: DeliveryState
    tries: Int32
    created_at: Time
    tried_at: Time | None
    next_try_at: Time | None
    status: Int32 | None
    """Of the last answer; null when none came."""
    answer: str | None
    """The beginning of the last answer, or why there is none. Null where the URL is not shown whole."""


class DeliveriesResponse(Struct, frozen=True):
    """A page, newest first."""

    deliveries: list[DeliveryResponse]
    next_cursor: str | None


def webhook_response(one: Webhook, *, whole: bool) -> WebhookResponse:
    """A webhook as the API shows it; `whole`: with what may be secret in its URL."""
    return WebhookResponse(
        one.id, one.url if whole else _origin(one.url), one.workflow_id, one.description, rfc3339(one.created_at_us)
    )


def delivery_response(one: Delivery, *, whole: bool) -> DeliveryResponse:
    """A delivery as the API shows it; `whole`: with what may be secret in its URL, and with what its receiver said."""
    return DeliveryResponse(
        one.id,
        one.execution_id,
        one.webhook_id or None,
        one.url if whole else _origin(one.url),
        one.state,
        one.tries,
        rfc3339(one.created_at_us),
        None if one.tried_at_us is None else rfc3339(one.tried_at_us),
        None if one.next_at_us is None else rfc3339(one.next_at_us),
        one.status,
        one.answer if whole else None,
    )


def _origin(url: str) -> str:
    """A URL without its path and query, which may hold a secret: chats give out such addresses."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}/…"
