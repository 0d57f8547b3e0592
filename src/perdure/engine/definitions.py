"""The service of definitions of agents and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.engine.cursors import write_cursor
from perdure.engine.deployments import LIST_MAX, check_page, registry_place
from perdure.store.verbs import definitions
from perdure.store.verbs.definitions import Definition
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

DEFINITION_BYTES_MAX: Final = 256 << 10


class Definitions:
    """`kind` is `agent` or `tool`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def register(self, project_id: str, kind: str, deployment_id: str | None, id: str, value: bytes) -> None:
        """Raises BadValue, DeploymentNotFound, BadRequest without any deployment."""
        check_name(id, where="id")
        if deployment_id is not None:
            check_name(deployment_id, where="deployment_id", max_bytes=KEY_BYTES_MAX)
        check_json(value, where="body", max_bytes=DEFINITION_BYTES_MAX)
        await self._engine.store.write(
            definitions.register_definition(
                project_id=project_id,
                kind=kind,
                deployment_id=deployment_id,
                id=id,
                value=value,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def get(self, project_id: str, kind: str, id: str, deployment_id: str | None = None) -> Definition:
        """Of the named or the current deployment. Raises NotFound, BadRequest."""
        return await self._engine.store.read(
            definitions.get_definition(project_id=project_id, kind=kind, deployment_id=deployment_id, id=id)
        )

    async def list(
        self, project_id: str, kind: str, cursor: str | None = None, limit: int = LIST_MAX, offset: int = 0
    ) -> tuple[Sequence[Definition], str | None]:
        """Of all deployments in use, with the next cursor. Raises BadRequest."""
        check_page(limit, offset)
        after = registry_place(cursor)
        page, following = await self._engine.store.read(
            definitions.list_definitions(project_id=project_id, kind=kind, after=after, limit=limit, offset=offset)
        )
        return page, None if following is None else write_cursor(following)
