"""Webhooks: the service, and the loop to deliver messages.

Each message is a signed POST, repeated under the same id until the answer is 2xx. All servers of a store share the
work: a server has a taken message for a minute.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import Final

import msgspec
from msgspec.structs import replace

from perdure.engine.base.calls import CallFailed, HttpAnswer
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.people.signing import Signing
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.outside import webhooks
from perdure.store.verbs.outside.webhooks import TakenDelivery
from perdure.store.verbs.runs import queries
from perdure.wire.base.codec import scrub_text
from perdure.wire.base.errors import NotFound, PerdureError
from perdure.wire.base.fields import checked_id
from perdure.wire.base.record import to_json
from perdure.wire.base.records import NULL
from perdure.wire.base.times import rfc3339
from perdure.wire.outside.webhooks import (
    CreateWebhook,
    Delivery,
    DeliveryState,
    ListWebhooks,
    Redeliver,
    Webhook,
    delivery_id,
)
from perdure.wire.runs.executions import Execution

logger = logging.getLogger("perdure.engine")

CALL_SECONDS: Final = 15.0
OURS_US: Final = 60_000_000
"""Longer than a call may last."""
AT_ONCE: Final = 100
AT_ONCE_PER_HOST: Final = 8
"""Most calls per host. The number falls with the room, so that hanging hosts leave room for others."""
BATCH: Final = 50
POLL_SECONDS: Final = 2.0
PAUSES_SECONDS: Final = (5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000)
"""Pauses before each further try: about two days in all."""
RETRY_AFTER_MAX: Final = 86_400
ANSWER_BYTES_MAX: Final = 1_024
BODY_BYTES_MAX: Final = 256 << 10
"""A larger input and result are left out of the message."""


class Webhooks(Service):
    def __init__(self, core: Core, signing: Signing) -> None:
        super().__init__(core)
        self._signing = signing
        self._core = core
        self._under_way: set[asyncio.Task[None]] = set()
        self._by_host: Counter[str] = Counter()

    @serves(CreateWebhook)
    async def create(self, scope: Scope, op: CreateWebhook) -> Webhook:
        await self._core.outbound.check_url(op.url)
        return await self.write(webhooks.make_webhook(self.at(scope), op))

    @serves(Redeliver)
    async def redeliver(self, scope: Scope, op: Redeliver) -> Delivery:
        execution_id, _, webhook_id = op.delivery_id.partition(".")
        execution_id = checked_id(execution_id, "delivery")
        webhook_id = webhook_id and checked_id(webhook_id, "webhook")
        return await self.write(webhooks.redeliver(self.at(scope), execution_id, webhook_id))

    def notify(self) -> None:
        self._core.notifier.notify(("loop", "deliver"))

    async def deliver_due(self) -> float:
        core = self._core
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return POLL_SECONDS
        now_us = core.clock.now_us()
        due_us = await core.store.read(webhooks.next_delivery())
        if due_us is None or due_us > now_us:
            pause = core.spread(POLL_SECONDS)
            return pause if due_us is None else min((due_us - now_us) / 1e6, pause)
        busy = [host for host, calls in self._by_host.items() if calls >= self._most_per_host()]
        taken = await core.store.write(
            webhooks.take_deliveries(
                busy=msgspec.json.encode(busy).decode(),
                limit=min(room, BATCH),
                until_us=now_us + OURS_US,
                now_us=now_us,
            )
        )
        back: list[TakenDelivery] = []
        for one in taken:
            if self._by_host[one.host] >= self._most_per_host():
                back.append(one)
                continue
            self._by_host[one.host] += 1
            task = asyncio.create_task(self._deliver(one), name="perdure-webhook")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if back:
            await core.store.write(webhooks.postpone_deliveries(taken=back, next_at_us=now_us))
        # The other due messages are for busy hosts; the end of a call notifies the loop.
        return 0.0 if taken else POLL_SECONDS

    def _most_per_host(self) -> int:
        room = AT_ONCE - len(self._under_way)
        return max(1, min(AT_ONCE_PER_HOST, room // AT_ONCE_PER_HOST))

    async def close(self) -> None:
        """Another server, or the next start, sends calls under way again."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _deliver(self, taken: TakenDelivery) -> None:
        core = self._core
        try:
            try:
                body = await self._body(taken)
                headers = await self._signing.headers(
                    taken.project_id, delivery_id(taken.execution_id, taken.webhook_id), body
                )
                answer = await core.outbound.request(
                    "POST",
                    taken.url,
                    body,
                    {"content-type": "application/json", "user-agent": "perdure-webhooks", **headers},
                    seconds=CALL_SECONDS,
                    answer_bytes_max=ANSWER_BYTES_MAX,
                )
                await self._settle(taken, answer.status, _text(answer), _retry_after(answer))
            except NotFound as error:
                await self._settle(taken, None, error.message, None, last=True)
            except CallFailed as error:
                await self._settle(taken, None, error.message, None)
        except PerdureError as error:  # the store is away: a server takes the message again after OURS_US
            logger.warning("The outcome of a webhook's message was not stored: %s", error)
        except Exception:  # one message must not end the loop
            logger.exception("A webhook's message was not sent; the server tries again.")
        finally:
            self._by_host[taken.host] -= 1
            if not self._by_host[taken.host]:
                del self._by_host[taken.host]
            self.notify()

    async def _settle(
        self, taken: TakenDelivery, status: int | None, answer: str, retry_after: int | None, *, last: bool = False
    ) -> None:
        core = self._core
        next_at_us = None
        if status is not None and 200 <= status < 300:
            state = DeliveryState.DELIVERED
            core.stats.count("webhooks_delivered")
        elif last or taken.tries > len(PAUSES_SECONDS) or status == 410:
            state = DeliveryState.FAILED
            core.stats.count("webhooks_given_up")
            logger.warning(
                "The server gave up the webhook of %s for execution %s after %d tries: %s",
                taken.host,
                taken.execution_id,
                taken.tries,
                answer if status is None else f"status {status}",
            )
        else:
            state = DeliveryState.PENDING
            pause = max(PAUSES_SECONDS[taken.tries - 1] * random.uniform(0.8, 1.2), retry_after or 0)
            next_at_us = core.clock.now_us() + int(pause * 1_000_000)
        await core.store.write(
            webhooks.settle_delivery(
                taken=taken, state=state, status=status, answer=scrub_text(answer), next_at_us=next_at_us
            )
        )

    async def _body(self, taken: TakenDelivery) -> bytes:
        """Raises NotFound, also for a deleted webhook."""
        if taken.webhook_id:
            known = await self.read(webhooks.list_webhooks(At(taken.project_id), ListWebhooks()))
            if all(one.id != taken.webhook_id for one in known.items):
                raise NotFound("The webhook was deleted.")
        execution = await self._core.store.read(
            queries.get(project_id=taken.project_id, execution_id=taken.execution_id)
        )
        return message_of(execution)


def message_of(execution: Execution) -> bytes:
    """The same for each try: a final execution does not change."""
    shown = execution
    size = len(bytes(execution.payload)) + len(bytes(execution.result or NULL))
    if size > BODY_BYTES_MAX:
        shown = replace(execution, payload=NULL, result=None)
    message = {
        "type": f"execution.{execution.phase.value}",
        "timestamp": rfc3339(execution.completed_at_us or execution.created_at_us),
        "data": shown,
        **({"left_out": ["payload", "result"]} if shown is not execution else {}),
    }
    return msgspec.json.encode(to_json(message))


def _text(answer: HttpAnswer) -> str:
    return answer.body.decode("utf-8", "replace")


def _retry_after(answer: HttpAnswer) -> int | None:
    text = answer.headers.get("retry-after", "")
    return min(int(text), RETRY_AFTER_MAX) if text.isascii() and text.isdigit() and len(text) < 10 else None
