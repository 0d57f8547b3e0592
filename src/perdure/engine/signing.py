"""Desk: calls out are signed, with a secret that each project has for itself and may replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.engine.clock import boottime_us
from perdure.store.verbs import signing
from perdure.store.verbs.idempotency import Idempotency
from perdure.store.verbs.signing import Secrets
from perdure.wire.errors import BadValue
from perdure.wire.signatures import make_secret, signed_headers

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

OVERLAP_HOURS: Final = 24.0
OVERLAP_HOURS_MAX: Final = 24.0 * 30
_KNOWN_US: Final = 30_000_000
"""How long a secret that another server replaces goes on alone here; the old one is good for as long at least."""


class Signing:
    """What projects sign with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[int, Secrets]] = {}

    async def headers(self, project_id: str, message_id: str, body: bytes) -> dict[str, str]:
        """The headers that sign a message; the same id again when it is sent again."""
        known = self._known.get(project_id)
        if known is None or known[0] < boottime_us():
            secrets = await self.secrets(project_id)
        else:
            secrets = known[1]
        now_us = self._engine.clock.now_us()
        return signed_headers(secrets.at(now_us), message_id, now_us // 1_000_000, body)

    async def known(self, project_id: str) -> Secrets | None:
        """The project's secret, if it was ever asked for."""
        return await self._engine.store.read(signing.read_signing(project_id=project_id))

    async def secrets(self, project_id: str) -> Secrets:
        """The project's secret, made when first asked for."""
        found = await self.known(project_id)
        if found is None:
            found = await self._engine.store.write(
                signing.make_signing(
                    project_id=project_id,
                    secret=make_secret(),
                    links=make_secret(),
                    now_us=self._engine.clock.now_us(),
                )
            )
        return self._keep(project_id, found)

    async def rotate(
        self, project_id: str, overlap_hours: float = OVERLAP_HOURS, *, idempotency: Idempotency | None = None
    ) -> Secrets:
        """Replace the project's secret; for `overlap_hours` messages carry a signature of each.

        Raises BadValue, SecretShownOnce.
        """
        if not 0 <= overlap_hours <= OVERLAP_HOURS_MAX:
            raise BadValue(
                f"overlap_hours: must be 0 to {OVERLAP_HOURS_MAX:g}, got {overlap_hours:g}.", {"path": "overlap_hours"}
            )
        now_us = self._engine.clock.now_us()
        made = await self._engine.store.write(
            signing.rotate_signing(
                project_id=project_id,
                secret=make_secret(),
                links=make_secret(),
                until_us=now_us + int(overlap_hours * 3_600_000_000),
                now_us=now_us,
                idempotency=idempotency,
            )
        )
        return self._keep(project_id, made)

    def _keep(self, project_id: str, found: Secrets) -> Secrets:
        if len(self._known) >= 10_000:
            self._known.clear()
        self._known[project_id] = (boottime_us() + _KNOWN_US, found)
        return found
