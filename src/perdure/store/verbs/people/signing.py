"""Secrets for signing a project's outgoing calls."""

from typing import NamedTuple

import msgspec

from perdure.store.base.interface import query, verb
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.wire.base.errors import SecretShownOnce


class Secrets(NamedTuple):
    """A project's secret, and the previous secret while still used."""

    secret: str
    made_at_us: int
    previous: str | None
    previous_until_us: int | None
    links: str
    """Signs links to questions; never shown."""
    previous_links: str | None = None

    def links_at(self, now_us: int) -> tuple[str, ...]:
        is_over = self.previous_until_us is None or self.previous_until_us <= now_us
        return (self.links,) if is_over or self.previous_links is None else (self.links, self.previous_links)

    def at(self, now_us: int) -> tuple[str, ...]:
        if self.previous is None or self.previous_until_us is None or self.previous_until_us <= now_us:
            return (self.secret,)
        return (self.secret, self.previous)


@verb(reads=True)
async def read_signing(*, project_id: str) -> Secrets | None:
    """None before the first signature."""
    for row in await query("read_signing", project_id=project_id):
        return Secrets(*row)
    return None


async def _stored(project_id: str) -> Secrets:
    [row] = await query("read_signing", project_id=project_id)
    return Secrets(*row)


@verb(sweep=True)
async def make_signing(*, project_id: str, secret: str, links: str, now_us: int) -> Secrets:
    """Store the secrets, unless the project has secrets. Returns the stored secrets."""
    await query("insert_signing", project_id=project_id, secret=secret, links=links, now_us=now_us)
    return await _stored(project_id)


@verb(sweep=True)
async def rotate_signing(
    *, project_id: str, secret: str, links: str, until_us: int, now_us: int, idempotency: Idempotency | None = None
) -> Secrets:
    """Sign with `secret` from now on, and with the present secret until `until_us`; an earlier secret ends. Links end
    then.

    Raises SecretShownOnce for a repeated request whose secret has been replaced since.
    """
    first = await recall(project_id, idempotency)
    if first is not None:
        stored = await _stored(project_id)
        if stored.made_at_us != msgspec.json.decode(first, type=int):
            raise SecretShownOnce(
                "The secret that the first request with this Idempotency-Key made has been replaced since; "
                "GET /api/v1/signing-secret has the present one."
            )
        return stored
    if not await query(
        "rotate_signing", project_id=project_id, secret=secret, links=links, until_us=until_us, now_us=now_us
    ):
        await query("insert_signing", project_id=project_id, secret=secret, links=links, now_us=now_us)
    await query("end_links", project_id=project_id, until_us=until_us)
    await remember(project_id, idempotency, msgspec.json.encode(now_us), now_us)
    return await _stored(project_id)
