"""Answers and events."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.connect import call, with_client
from perdure.cli.base.options import ExecutionArgument, JsonFlag, UrlOption, parse_json
from perdure.cli.base.output import emit, fields_of, note, print_result, say

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client
    from perdure.wire.runs.executions import ResumeReply

QuestionOption = Annotated[
    str | None,
    typer.Option("--question", help="The question that is answered, as `perdure approvals --json` names it."),
]
DataOption = Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or - for the standard input.")]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", resume, publish)


def resume(
    id: ExecutionArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The suspended step, as `perdure show ID` names it.")],
    data: DataOption = "null",
    question: QuestionOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer a suspended step with data.

    The first answer counts; the same answer again changes nothing.
    """
    from msgspec import Raw

    from perdure.cli.base.render import date_time
    from perdure.wire.agents.approvals import AnswerState
    from perdure.wire.runs.executions import ResumeExecution
    from perdure.wire.runs.waits import GetWaits

    answer = ResumeExecution(id, key, Raw(parse_json(data, "--data")), question)

    async def work(client: "Client") -> "tuple[bool, ResumeReply]":
        waits = (await client._transport.call(GetWaits(id))).waits
        asked = any(wait.key == key and wait.is_question for wait in waits)
        return asked, await client._transport.call(answer)

    asked, said = with_client(url, work)
    by = "" if said.answered_by is None else f": {said.answered_by} gave it at {date_time(said.answered_at_us)}"
    if as_json:
        emit({**fields_of(said), "asked": asked})
    elif said.state is AnswerState.EARLY:
        say(f"{id} keeps the answer to {key!r}.")
        note("No step has asked for it yet. A step that shows nothing will take it; one that asks a question will not.")
    elif asked:
        say(f"{id} goes on with the answer to {key!r}.")
    else:
        say(f"{id} has this answer to {key!r} already{by}.")


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where executions wait for it.")],
    data: DataOption = "null",
    type: Annotated[str | None, typer.Option("--type", help="The event's type.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option("--dedup-key", help="The topic keeps only the first event with this key.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish an event, and print its number."""
    from msgspec import Raw

    from perdure.wire.runs.events import EventData, PublishEvent

    event = EventData(Raw(parse_json(data, "--data")), type, dedup_key)

    number = call(url, PublishEvent(topic, [event])).sequence_ids[0]
    print_result(as_json, {"topic": topic, "sequence_id": number}, f"Event {number} of topic {topic!r}.")
