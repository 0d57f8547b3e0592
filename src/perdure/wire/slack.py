from typing import ClassVar, Final

from msgspec import field

from perdure.wire.fields import Name, Time
from perdure.wire.operation import Noun, Operation
from perdure.wire.record import Done, Record

LIST_MAX: Final = 1_000


class SlackApp(Record, frozen=True):
    api_app_id: str
    bound_at_us: Time = field(name="bound_at")


class SlackApps(Record, frozen=True):
    """By id; at most 1,000."""

    shown_as: ClassVar[str] = "SlackAppsResponse"

    apps: list[SlackApp]


slack: Final = Noun("Slack")


@slack.post("/api/v1/slack/apps", repeated="no effect", contract=True)
class RegisterSlackApp(Operation[Done], frozen=True):
    """Bind a Slack app to the project.

    409 while it is bound to another one, which has to release it first.
    """

    api_app_id: Name


@slack.get("/api/v1/slack/apps")
class ListSlackApps(Operation[SlackApps], frozen=True):
    """The Slack apps that are bound to the project."""


@slack.delete("/api/v1/slack/apps/{api_app_id}")
class ReleaseSlackApp(Operation[None], frozen=True):
    """End a Slack app's binding to the project; any project may bind it then."""

    api_app_id: str
