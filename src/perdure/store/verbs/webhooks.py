"""Webhooks: who hears of ends, and what becomes of each message.

A message is written in the transaction of the end (`enqueue`), taken by whichever server sees it first, and sent at
least once: whoever dies between taking and settling it leaves it to the others.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from perdure.store.interface import Enqueued, Rows, Tell, query, query_many, verb
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.wire.errors import BadRequest, NotFound
from perdure.wire.webhooks import Delivery, DeliveryState, Webhook

WEBHOOKS_MAX = 20


async def enqueue(project_id: str, execution_id: str, workflow_id: str, is_root: bool, now_us: int) -> None:
    """Part of an end that somebody wants to hear of."""
    await query(
        "insert_deliveries",
        execution_id=execution_id,
        project_id=project_id,
        workflow_id=workflow_id,
        is_root=int(is_root),
        now_us=now_us,
    )
    await Tell(Enqueued())


def host_of(url: str) -> str:
    """What calls are counted by: a host that hangs must not hold up the messages for others."""
    return urlsplit(url).netloc.lower()


@verb(locks="project=project_id")
async def make_webhook(
    *,
    project_id: str,
    id: str,
    url: str,
    workflow_id: str | None,
    description: str | None,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> Webhook:
    """Have a URL hear of ends from now on. One that hears of the same already stays as it is. Raises BadRequest."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return msgspec.json.decode(first, type=Webhook)
    await query("lock_project", project_id=project_id)
    known = [Webhook(*row) for row in await query("list_webhooks", project_id=project_id)]
    for one in known:
        if (one.url, one.workflow_id) == (url, workflow_id):
            await remember(project_id, idempotency, msgspec.json.encode(one), now_us)
            return one
    if len(known) >= WEBHOOKS_MAX:
        raise BadRequest(f"The project has {WEBHOOKS_MAX} webhooks, the most there may be; delete one first.")
    await query(
        "insert_webhook",
        project_id=project_id,
        id=id,
        url=url,
        host=host_of(url),
        workflow_id=workflow_id,
        description=description,
        now_us=now_us,
    )
    await query("count_webhooks", project_id=project_id)
    made = Webhook(id, url, workflow_id, description, now_us)
    await remember(project_id, idempotency, msgspec.json.encode(made), now_us)
    return made


@verb(locks="project=project_id")
async def delete_webhook(*, project_id: str, webhook_id: str) -> None:
    """Tell a URL nothing more: what is pending for it fails when it is due. Raises NotFound."""
    await query("lock_project", project_id=project_id)
    if not await query("delete_webhook", project_id=project_id, id=webhook_id):
        raise NotFound(f"Webhook {webhook_id!r} does not exist; `perdure webhooks ls` shows them.")
    await query("count_webhooks", project_id=project_id)


@verb(looks=True)
async def list_webhooks(*, project_id: str) -> list[Webhook]:
    """All of a project, newest first."""
    return [Webhook(*row) for row in await query("list_webhooks", project_id=project_id)]


class Taken(NamedTuple):
    """A message that this server is to send."""

    project_id: str
    execution_id: str
    webhook_id: str
    url: str
    host: str
    tries: int
    """With this one; also what settling it has to show."""


@verb(sweep=True)
async def take_deliveries(*, busy: str, limit: int, until_us: int, now_us: int) -> list[Taken]:
    """Take what is due, but for hosts that are `busy` (a JSON list), until a time from which others may take it."""
    rows = await query("take_deliveries", busy=busy, limit=limit, until_us=until_us, now_us=now_us)
    return [Taken(*row) for row in rows]


@verb(looks=True)
async def next_delivery() -> int | None:
    """When something is due."""
    at_us: int | None = (await query("next_delivery"))[0][0]
    return at_us


@verb(locks="execution=taken.execution_id")
async def settle_delivery(
    *, taken: Taken, state: DeliveryState, status: int | None, answer: str, next_at_us: int | None
) -> bool:
    """Note what came of a try. False: somebody else has taken it since, whose word counts."""
    return bool(
        await query(
            "settle_delivery",
            execution_id=taken.execution_id,
            webhook_id=taken.webhook_id,
            tries=taken.tries,
            state=state.value,
            status=status,
            answer=answer,
            next_at_us=next_at_us,
        )
    )


@verb(locks="execution=taken[].execution_id")
async def postpone_deliveries(*, taken: Sequence[Taken], next_at_us: int) -> None:
    """Give back what was taken and not tried."""
    await query_many("postpone_delivery", [(next_at_us, one.execution_id, one.webhook_id, one.tries) for one in taken])


@verb(locks="execution=execution_id")
async def redeliver(*, project_id: str, execution_id: str, webhook_id: str, now_us: int) -> Delivery:
    """Send a message again, under the same id, whatever became of it. Raises NotFound."""
    values: dict[str, Any] = {"project_id": project_id, "execution_id": execution_id, "webhook_id": webhook_id}
    if not await query("redeliver", now_us=now_us, **values):
        raise NotFound("There is no such delivery; GET /api/v1/webhooks/deliveries lists them.")
    await Tell(Enqueued())
    return _delivery((await query("read_delivery", **values))[0])


@verb(looks=True)
async def list_deliveries(
    *, project_id: str, webhook_id: str | None, state: str | None, before: tuple[int, str, str], limit: int
) -> list[Delivery]:
    """A page of deliveries, newest first."""
    rows: Rows = await query(
        "list_deliveries",
        project_id=project_id,
        webhook_id=webhook_id,
        state=state,
        before_us=before[0],
        before_id=before[1],
        before_webhook=before[2],
        limit=limit,
    )
    return [_delivery(row) for row in rows]


@verb(looks=True)
async def deliveries_of(*, project_id: str, execution_id: str) -> list[Delivery]:
    """Who was told of the end of an execution."""
    rows = await query("deliveries_of", project_id=project_id, execution_id=execution_id)
    return [_delivery(row) for row in rows]


def _delivery(values: Sequence[Any]) -> Delivery:
    fields = list(values)
    fields[3] = DeliveryState(fields[3])
    return Delivery(*fields)
