"""Slack apps of a project."""

from perdure.server.routing import Call, Routes
from perdure.wire.public import DONE, Done, rfc3339
from perdure.wire.public_conversations import RegisterSlackAppRequest, SlackApp, SlackAppsResponse

routes = Routes("Slack")


@routes.post("/api/v1/slack/apps", contract=True)
async def register_slack_app(call: Call, body: RegisterSlackAppRequest) -> Done:
    """Bind a Slack app to the project; it leaves the one to which it was bound."""
    await call.engine.slack.bind(call.project_id, body.api_app_id)
    return DONE


@routes.get("/api/v1/slack/apps")
async def list_slack_apps(call: Call) -> SlackAppsResponse:
    """The Slack apps that are bound to the project."""
    return SlackAppsResponse(
        [SlackApp(id, rfc3339(at_us)) for id, at_us in await call.engine.slack.apps(call.project_id)]
    )
