"""Answers and events."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from perdure.cli.common import JsonFlag, UrlOption, ask, command, emit, note, parse_json, say, with_client

if TYPE_CHECKING:
    from perdure.sdk.client import Client

QuestionOption = Annotated[
    str | None,
    typer.Option("--question", help="The question that is answered, as `perdure approvals --json` names it."),
]
DataOption = Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or - for the standard input.")]


def add_to(app: typer.Typer) -> None:
    command(app, "resume", rich_help_panel="Run")(resume)
    command(app, "publish", rich_help_panel="Run")(publish)


def resume(
    id: Annotated[str, typer.Argument(metavar="ID", help="The execution.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The suspended step, as `perdure show ID` names it.")],
    data: DataOption = "null",
    question: QuestionOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer a suspended step. The first answer stands; the same answer again changes nothing."""
    import msgspec

    from perdure.cli.render import local
    from perdure.cli.waits import asks
    from perdure.wire.waits import GetWaits

    body = msgspec.json.encode({"data": msgspec.Raw(parse_json(data, "--data")), "question": question})

    async def work(client: "Client") -> tuple[bool, dict[str, Any]]:
        waits = (await client._transport.call(GetWaits(id))).waits
        asked = any(wait.key == key and asks(wait) for wait in waits)
        path = f"/api/v1/executions/{quote(id, safe='')}/resume/{quote(key, safe='')}"
        return asked, msgspec.json.decode(await ask(client, "POST", path, body))

    asked, said = with_client(url, work)
    by = "" if said.get("answered_by") is None else f": {said['answered_by']} gave it at {local(said['answered_at'])}"
    if as_json:
        emit({**said, "asked": asked})
    elif said.get("state") == "early":
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
    """Publish an event to a topic, and print its number there."""
    from msgspec import Raw

    from perdure.wire.events import EventData, PublishEvent

    event = EventData(Raw(parse_json(data, "--data")), type, dedup_key)

    async def work(client: "Client") -> int:
        return (await client._transport.call(PublishEvent(topic, [event]))).sequence_ids[0]

    number = with_client(url, work)
    if as_json:
        emit({"topic": topic, "sequence_id": number})
    else:
        say(f"Event {number} of topic {topic!r}.")
