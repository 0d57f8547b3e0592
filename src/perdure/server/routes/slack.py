"""Slack apps of a project."""

from perdure.server.routing import Call, Routes
from perdure.wire.public import DONE, Done, rfc3339
from perdure.wire.public_conversations import RegisterSlackAppRequest, SlackApp, SlackAppsResponse

routes = Routes("Slack")


@routes.post("/api/v1/slack/apps", contract=True)
async def register_slack_app(call: Call, body: RegisterSlackAppRequest) -> Done:
    """Bind a Slack app to the project. 409 while it is bound to another one, which has to release it first."""
    await call.engine.slack.bind(call.project_id, body.api_app_id)
    return DONE


@routes.get("/api/v1/slack/apps")
async def list_slack_apps(call: Call) -> SlackAppsResponse:
    """The Slack apps that are bound to the project."""
    return SlackAppsResponse(
        [SlackApp(id, rfc3339(at_us)) for id, at_us in await call.engine.slack.apps(call.project_id)]
    )


@routes.delete("/api/v1/slack/apps/{api_app_id}")
async def release_slack_app(call: Call, api_app_id: str) -> None:
    """End a Slack app's binding to the project; any project may bind it then."""
    await call.engine.slack.release(call.project_id, api_app_id)
