from typing import Final

from msgspec import field

from perdure.wire.base.fields import Name, Time
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Done, Record

LIST_MAX: Final = 1_000


class SlackApp(Record, frozen=True):
    api_app_id: str
    bound_at_us: Time = field(name="bound_at")


slack: Final = Noun("Slack")


@slack.post("/api/v1/slack/apps", repeated="no effect", contract=True)
class RegisterSlackApp(Operation[Done], frozen=True):
    """Note a Slack app for the project.

    The server keeps the name, and does not use it yet. Other projects may note the same app.
    """

    api_app_id: Name


@slack.get("/api/v1/slack/apps", under="apps", reply="SlackAppsResponse", order="By id; at most 1,000.")
class ListSlackApps(Operation[Listed[SlackApp]], frozen=True):
    """The Slack apps of the project."""


@slack.delete("/api/v1/slack/apps/{api_app_id}")
class ReleaseSlackApp(Operation[None], frozen=True):
    """Remove a Slack app from the project."""

    api_app_id: str
