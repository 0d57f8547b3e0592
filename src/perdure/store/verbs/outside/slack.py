"""Slack apps of projects. A name proves nothing: several projects may use the same app name."""

from perdure.store.base.interface import query, records, verb
from perdure.wire.base.errors import NotFound
from perdure.wire.outside.slack import SlackApp


@verb(sweep=True)
async def bind_slack_app(*, project_id: str, api_app_id: str, now_us: int) -> None:
    await query("bind_slack_app", project_id=project_id, api_app_id=api_app_id, now_us=now_us)


@verb(sweep=True)
async def release_slack_app(*, project_id: str, api_app_id: str) -> None:
    """Raises NotFound."""
    if not await query("release_slack_app", project_id=project_id, api_app_id=api_app_id):
        raise NotFound(f"Slack app {api_app_id!r} is not bound to this project.")


@verb(reads=True)
async def list_slack_apps(*, project_id: str, limit: int) -> list[SlackApp]:
    """The project's apps, by id."""
    return await records(SlackApp, "list_slack_apps", project_id=project_id, limit=limit)
