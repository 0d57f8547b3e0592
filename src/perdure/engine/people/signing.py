"""Signs outgoing calls with a secret per project, which the project may replace."""

from __future__ import annotations

from typing import Final

from perdure.engine.base.clock import boottime_us
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.people import signing
from perdure.store.verbs.people.signing import Secrets
from perdure.wire.base.signatures import make_secret, signed_headers
from perdure.wire.people.signing import GetSigningSecret, RotateSigningSecret, SigningSecret

_KNOWN_US: Final = 30_000_000
"""A replaced secret stays valid at least as long."""


class Signing(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._known: dict[str, tuple[int, Secrets]] = {}

    async def headers(self, project_id: str, message_id: str, body: bytes) -> dict[str, str]:
        """A retry must use the same id."""
        known = self._known.get(project_id)
        if known is None or known[0] < boottime_us():
            secrets = await self.secrets(project_id)
        else:
            secrets = known[1]
        now_us = self.now_us()
        return signed_headers(secrets.at(now_us), message_id, now_us // 1_000_000, body)

    async def known(self, project_id: str) -> Secrets | None:
        """None if nothing has asked for the secret yet."""
        return await self.read(signing.read_signing(project_id=project_id))

    async def secrets(self, project_id: str) -> Secrets:
        """The project's secrets, made at the first call."""
        found = await self.known(project_id)
        if found is None:
            found = await self.write(
                signing.make_signing(
                    project_id=project_id, secret=make_secret(), links=make_secret(), now_us=self.now_us()
                )
            )
        return self._keep(project_id, found)

    @serves(GetSigningSecret)
    async def get(self, scope: Scope, op: GetSigningSecret) -> SigningSecret:
        return _shown(await self.secrets(scope.project_id))

    @serves(RotateSigningSecret)
    async def rotate(self, scope: Scope, op: RotateSigningSecret) -> SigningSecret:
        now_us = self.now_us()
        made = await self.write(
            signing.rotate_signing(
                project_id=scope.project_id,
                secret=make_secret(),
                links=make_secret(),
                until_us=now_us + int(op.overlap_hours * 3_600_000_000),
                now_us=now_us,
                idempotency=scope.idempotency,
            )
        )
        return _shown(self._keep(scope.project_id, made))

    def _keep(self, project_id: str, found: Secrets) -> Secrets:
        if len(self._known) >= 10_000:
            self._known.clear()
        self._known[project_id] = (boottime_us() + _KNOWN_US, found)
        return found


def _shown(secrets: Secrets) -> SigningSecret:
    return SigningSecret(secrets.secret, secrets.made_at_us, secrets.previous_until_us)
