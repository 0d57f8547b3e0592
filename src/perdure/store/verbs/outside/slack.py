"""Slack apps of projects. A name proves nothing: several projects may use the same app name."""

from perdure.store.base.interface import query, records, serves
from perdure.store.verbs.base.idempotency import At
from perdure.wire.base.errors import NotFound
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done
from perdure.wire.outside.slack import LIST_MAX, ListSlackApps, RegisterSlackApp, ReleaseSlackApp, SlackApp


@serves(RegisterSlackApp, sweep=True)
async def bind_slack_app(at: At, op: RegisterSlackApp) -> Done:
    await query("bind_slack_app", at, op)
    return DONE


@serves(ReleaseSlackApp, sweep=True)
async def release_slack_app(at: At, op: ReleaseSlackApp) -> None:
    if not await query("release_slack_app", at, op):
        raise NotFound(f"Slack app {op.api_app_id!r} is not bound to this project.")


@serves(ListSlackApps, reads=True)
async def list_slack_apps(at: At, op: ListSlackApps) -> Listed[SlackApp]:
    return Listed(await records(SlackApp, "list_slack_apps", at, limit=LIST_MAX))
