"""Webhooks and deliveries.

The transaction of an end writes the messages. If a server dies between taking and settling, another server sends the
message again: each message is sent at least once.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from perdure.store.base.interface import Enqueued, Notify, query, query_many, records, serves, value, verb
from perdure.store.base.records import to_values
from perdure.store.verbs.base.idempotency import At
from perdure.wire.base.access import Role
from perdure.wire.base.cursors import none_of_ours
from perdure.wire.base.errors import BadRequest, NotFound
from perdure.wire.base.fields import is_uuid
from perdure.wire.base.operation import Listed
from perdure.wire.base.times import NEVER_US
from perdure.wire.outside.webhooks import (
    CreateWebhook,
    DeleteWebhook,
    Delivery,
    DeliveryState,
    ListDeliveries,
    ListWebhooks,
    Webhook,
)

WEBHOOKS_MAX = 20


async def enqueue(project_id: str, execution_id: str, workflow_id: str, is_root: bool, now_us: int) -> None:
    ended = {"project_id": project_id, "execution_id": execution_id, "workflow_id": workflow_id}
    await query("insert_deliveries", is_root=int(is_root), now_us=now_us, **ended)
    await Notify(Enqueued())


def host_of(url: str) -> str:
    """The host to count calls by, so that a hanging host does not hold up others."""
    return urlsplit(url).netloc.lower()


@verb(locks="project=at.project_id")
async def make_webhook(at: At, op: CreateWebhook) -> Webhook:
    """An equal webhook stays unchanged. Raises BadRequest."""
    first = await at.recall()
    if first is not None:
        return Webhook(**msgspec.json.decode(first))
    await query("lock_project", at)
    known = await records(Webhook, "list_webhooks", at)
    for one in known:
        if (one.url, one.workflow_id) == (op.url, op.workflow_id):
            await at.remember(to_values(one))
            return one
    if len(known) >= WEBHOOKS_MAX:
        raise BadRequest(f"The project has {WEBHOOKS_MAX} webhooks, the most there may be; delete one first.")
    made = Webhook(id=at.new_id, created_at_us=at.now_us, **asdict(op))
    await query("insert_webhook", at, made, host=host_of(op.url))
    await query("count_webhooks", at)
    await at.remember(to_values(made))
    return made


@serves(DeleteWebhook, locks="project=at.project_id")
async def delete_webhook(at: At, op: DeleteWebhook) -> None:
    await query("lock_project", at)
    if not await query("delete_webhook", at, id=op.webhook_id):
        raise NotFound(f"Webhook {op.webhook_id!r} does not exist; `perdure webhooks ls` shows them.")
    await query("count_webhooks", at)


@serves(ListWebhooks, reads=True)
async def list_webhooks(at: At, op: ListWebhooks) -> Listed[Webhook]:
    found = await records(Webhook, "list_webhooks", at)
    return Listed(found if at.may(Role.ADMIN) else [one.without_secrets() for one in found])


class TakenDelivery(Struct, frozen=True):
    project_id: str
    execution_id: str
    webhook_id: str
    url: str
    host: str
    tries: int
    """The tries with the present try; a settlement must show the same number."""


@verb(sweep=True)
async def take_deliveries(*, busy: str, limit: int, until_us: int, now_us: int) -> list[TakenDelivery]:
    """Take due messages until `until_us`, except messages for `busy` hosts (a JSON list)."""
    return await records(TakenDelivery, "take_deliveries", busy=busy, limit=limit, until_us=until_us, now_us=now_us)


@verb(reads=True)
async def next_delivery() -> int | None:
    at_us: int | None = await value("next_delivery")
    return at_us


@verb(locks="execution=taken.execution_id")
async def settle_delivery(
    *, taken: TakenDelivery, state: DeliveryState, status: int | None, answer: str, next_at_us: int | None
) -> bool:
    outcome = {"state": state.value, "status": status, "answer": answer, "next_at_us": next_at_us}
    return bool(await query("settle_delivery", taken, **outcome))


@verb(locks="execution=taken[].execution_id")
async def postpone_deliveries(*, taken: Sequence[TakenDelivery], next_at_us: int) -> None:
    await query_many("postpone_delivery", [(next_at_us, one.execution_id, one.webhook_id, one.tries) for one in taken])


@verb(locks="execution=execution_id")
async def redeliver(at: At, execution_id: str, webhook_id: str) -> Delivery:
    """Send a message again, under the same id, in any state. Raises NotFound."""
    values = {"execution_id": execution_id, "webhook_id": webhook_id}
    if not await query("redeliver", at, **values):
        raise NotFound("This delivery does not exist; GET /api/v1/webhooks/deliveries lists them.")
    await Notify(Enqueued())
    (again,) = await records(Delivery, "read_delivery", at, **values)
    return _shown(at, again)


@serves(ListDeliveries, reads=True)
async def list_deliveries(at: At, op: ListDeliveries) -> Listed[Delivery]:
    before = (NEVER_US, "", "") if op.cursor is None else _read_cursor(op.cursor)
    if op.execution_id is not None:
        found = [
            one
            for one in sorted(await records(Delivery, "deliveries_of", at, op), key=_place, reverse=True)
            if op.webhook_id in (None, one.webhook_id) and op.state in (None, one.state) and _place(one) < before
        ]
    else:
        before_us, before_id, before_webhook = before
        place = {"before_us": before_us, "before_id": before_id, "before_webhook": before_webhook}
        found = await records(Delivery, "list_deliveries", at, op, **place, limit=op.limit + 1)
    page = Listed.of(found, op.limit, lambda last: f"{last.created_at_us}.{last.id}")
    return page._replace(items=[_shown(at, one) for one in page.items])


def _place(one: Delivery) -> tuple[int, str, str]:
    return one.created_at_us, one.execution_id, one.webhook_id or ""


def _shown(at: At, one: Delivery) -> Delivery:
    """Hide the secrets from a caller whose role may not set the delivery's URL."""
    giver = Role.ADMIN if one.webhook_id else Role.WRITE
    return one if at.may(giver) else one.without_secrets()


def _read_cursor(text: str) -> tuple[int, str, str]:
    at_text, _, id = text.partition(".")
    execution_id, _, webhook_id = id.partition(".")
    is_time = at_text.isascii() and at_text.isdigit() and len(at_text) < 19
    if not is_time or not is_uuid(execution_id) or (webhook_id and not is_uuid(webhook_id)):
        raise none_of_ours("newest")
    return int(at_text), execution_id, webhook_id
