"""Slack apps: which project hears of what comes in through one."""

from perdure.store.interface import query, verb


@verb
async def bind_slack_app(*, project_id: str, api_app_id: str, now_us: int) -> None:
    """Bind an app to the project, and to no other any more."""
    await query("bind_slack_app", project_id=project_id, api_app_id=api_app_id, now_us=now_us)


@verb
async def list_slack_apps(*, project_id: str, limit: int) -> list[tuple[str, int]]:
    """The project's apps by id, each with the time since which it is bound."""
    return [(id, at_us) for id, at_us in await query("list_slack_apps", project_id=project_id, limit=limit)]
