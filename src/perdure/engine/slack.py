"""The service of Slack apps bound to projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.store.verbs import slack
from perdure.wire.codec import check_name

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

LIST_MAX: Final = 1_000


class Slack:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def bind(self, project_id: str, api_app_id: str) -> None:
        """Bind an app to one project. Raises BadValue, Conflict."""
        check_name(api_app_id, where="api_app_id")
        await self._engine.store.write(
            slack.bind_slack_app(project_id=project_id, api_app_id=api_app_id, now_us=self._engine.clock.now_us())
        )

    async def release(self, project_id: str, api_app_id: str) -> None:
        """Raises NotFound."""
        await self._engine.store.write(slack.release_slack_app(project_id=project_id, api_app_id=api_app_id))

    async def apps(self, project_id: str) -> Sequence[tuple[str, int]]:
        """The project's apps, each with the time of its binding."""
        return await self._engine.store.read(slack.list_slack_apps(project_id=project_id, limit=LIST_MAX))
