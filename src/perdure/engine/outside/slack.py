"""The service of Slack apps bound to projects."""

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.outside import slack
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done
from perdure.wire.outside.slack import LIST_MAX, ListSlackApps, RegisterSlackApp, ReleaseSlackApp, SlackApp


class Slack(Service):
    @serves(RegisterSlackApp)
    async def bind(self, scope: Scope, op: RegisterSlackApp) -> Done:
        await self.write(
            slack.bind_slack_app(project_id=scope.project_id, api_app_id=op.api_app_id, now_us=self.now_us())
        )
        return DONE

    @serves(ListSlackApps)
    async def apps(self, scope: Scope, op: ListSlackApps) -> Listed[SlackApp]:
        return Listed(await self.read(slack.list_slack_apps(project_id=scope.project_id, limit=LIST_MAX)))

    @serves(ReleaseSlackApp)
    async def release(self, scope: Scope, op: ReleaseSlackApp) -> None:
        await self.write(slack.release_slack_app(project_id=scope.project_id, api_app_id=op.api_app_id))
