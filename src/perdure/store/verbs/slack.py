"""Slack apps, each bound to the project that gets its events."""

from perdure.store.interface import query, records, verb
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.slack import SlackApp


@verb(sweep=True)
async def bind_slack_app(*, project_id: str, api_app_id: str, now_us: int) -> None:
    """Raises Conflict while another project has the app."""
    if not await query("bind_slack_app", project_id=project_id, api_app_id=api_app_id, now_us=now_us):
        raise Conflict(
            f"Slack app {api_app_id!r} is bound to another project. Release it there first: "
            f"DELETE /api/v1/slack/apps/{api_app_id}."
        )


@verb(sweep=True)
async def release_slack_app(*, project_id: str, api_app_id: str) -> None:
    """Raises NotFound."""
    if not await query("release_slack_app", project_id=project_id, api_app_id=api_app_id):
        raise NotFound(f"Slack app {api_app_id!r} is not bound to this project.")


@verb(looks=True)
async def list_slack_apps(*, project_id: str, limit: int) -> list[SlackApp]:
    """By id."""
    return await records(SlackApp, "list_slack_apps", project_id=project_id, limit=limit)
