"""Telling running executions something: resume answers a step, publish appends an event."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.common import JsonFlag, UrlOption, command, emit, note, parse_json, say, with_client

if TYPE_CHECKING:
    from perdure.sdk.client import Client

DataOption = Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or - for the standard input.")]


def add_to(app: typer.Typer) -> None:
    """Put these commands into the application."""
    command(app, "resume", rich_help_panel="Run")(resume)
    command(app, "publish", rich_help_panel="Run")(publish)


def resume(
    id: Annotated[str, typer.Argument(metavar="ID", help="The execution.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The suspended step, as `perdure show ID` names it.")],
    data: DataOption = "null",
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer a suspended step, now or before it asks. The first answer stands; the same one again changes nothing."""
    from msgspec import Raw

    from perdure.cli.waits import waits_of

    answer = Raw(parse_json(data, "--data"))

    async def work(client: "Client") -> bool:
        asked = any(wait["key"] == key and not wait["topic"] for wait in (await waits_of(client, id))["waits"])
        await client._transport.resume(id, key, answer)
        return asked

    asked = with_client(url, work)
    if as_json:
        emit({"execution_id": id, "step_key": key, "asked": asked})
    elif asked:
        say(f"{id} goes on with the answer to {key!r}.")
    else:
        say(f"{id} has the answer to {key!r}.")
        note("No step asks for it at the moment; unless it was answered before, the answer waits until one does.")


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where executions wait for it.")],
    data: DataOption = "null",
    type: Annotated[str | None, typer.Option("--type", help="The event's type.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option("--dedup-key", help="The topic keeps the first event of this key, and no other.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish an event to a topic, and print its number there."""
    from msgspec import Raw

    from perdure.wire.requests import EventItem

    item = EventItem(Raw(parse_json(data, "--data")), type, dedup_key)

    async def work(client: "Client") -> int:
        return (await client._transport.publish(topic, [item]))[0]

    number = with_client(url, work)
    if as_json:
        emit({"topic": topic, "sequence_id": number})
    else:
        say(f"Event {number} of topic {topic!r}.")
