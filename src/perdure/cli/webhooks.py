"""Webhooks, their deliveries, and the signing secret."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from perdure.cli.common import JsonFlag, Refused, UrlOption, ask, command, console, emit, group, note, say, with_client

if TYPE_CHECKING:
    from perdure.sdk.client import Client

PATH = "/api/v1/webhooks"


def add_to(app: typer.Typer) -> None:
    webhooks = group("Call URLs when executions end.")
    for name, function in (
        ("create", create),
        ("ls", ls),
        ("delete", delete),
        ("deliveries", deliveries),
        ("redeliver", redeliver),
        ("secret", secret),
    ):
        command(webhooks, name)(function)
    command(webhooks, "list", hidden=True)(ls)
    command(webhooks, "rm", hidden=True)(delete)
    app.add_typer(webhooks, name="webhooks", rich_help_panel="Serve")


def create(
    target: Annotated[str, typer.Argument(metavar="URL", help="The URL to call, with https.")],
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Only of this workflow.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="A note on its purpose.")] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a webhook: URL is called when an execution without a parent ends."""
    made = _ask(url, "POST", PATH, {"url": target, "workflow_id": workflow, "description": description})
    if as_json:
        emit(made)
        return
    say(made["id"])
    note("Its messages are signed; `perdure webhooks secret` shows the secret.")


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List webhooks, newest first."""
    found = _ask(url, "GET", PATH)["webhooks"]
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        say("No webhooks; make one with `perdure webhooks create URL`.")
        return
    _print(
        ("ID", "URL", "WORKFLOW", ""),
        [[one["id"], one["url"], one["workflow_id"], one["description"]] for one in found],
    )


def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="The webhook, as `perdure webhooks ls` shows it.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a webhook. Nothing more is sent to it."""
    _ask(url, "DELETE", f"{PATH}/{quote(id, safe='')}")
    if as_json:
        emit({"id": id, "deleted": True})
    else:
        say(f"{id} is deleted.")


def deliveries(
    execution: Annotated[str | None, typer.Option("--execution", help="About this execution.")] = None,
    webhook: Annotated[str | None, typer.Option("--webhook", help="To this webhook.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=500)] = 20,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List deliveries, sent and pending, newest first, with their outcome."""
    from perdure.cli.render import local, plain

    if state not in (None, "pending", "delivered", "failed"):
        raise Refused(f"--state is pending, delivered or failed; got {state!r}.")
    wanted = {"execution_id": execution, "webhook_id": webhook, "state": state, "limit": limit}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    found = _ask(url, "GET", f"{PATH}/deliveries?{query}")["deliveries"]
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        filtered = (execution, webhook, state) != (None, None, None)
        say("No deliveries match." if filtered else "No deliveries.")
        return
    for one in found:
        tried = f"{one['tries']} {'try' if one['tries'] == 1 else 'tries'}"
        next_try = "" if one["next_try_at"] is None else f"next try at {local(one['next_try_at'])}"
        status = "" if one["status"] is None else f"status {one['status']}"
        say(f"{one['id']}\n  to {plain(one['url'])}")
        say("  " + ", ".join(filter(None, (one["state"], tried, status, next_try, _short(one["answer"] or "")))))


def redeliver(
    id: Annotated[str, typer.Argument(metavar="ID", help="The delivery, as `perdure webhooks deliveries` shows it.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a delivery again now, under the same id."""
    made = _ask(url, "POST", f"{PATH}/deliveries/{quote(id, safe='')}/redeliver")
    if as_json:
        emit(made)
    else:
        say(f"{id} is sent again to {made['url']}.")


def secret(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Replace it. For a while, messages carry both signatures.")
    ] = False,
    overlap_hours: Annotated[
        float | None, typer.Option("--overlap-hours", help="For how long; 0 ends the old one at once. Default: 24.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the signing secret, or replace it. Needs a key with the role admin."""
    from perdure.cli.render import local

    if not rotate and overlap_hours is not None:
        raise Refused("--overlap-hours goes with --rotate.")
    if rotate:
        body = {} if overlap_hours is None else {"overlap_hours": overlap_hours}
        found = _ask(url, "POST", "/api/v1/signing-secret/rotate", body)
    else:
        found = _ask(url, "GET", "/api/v1/signing-secret")
    if as_json:
        emit(found)
        return
    say(found["secret"])
    if found["previous_expires_at"]:
        note(f"The previous secret also signs until {local(found['previous_expires_at'])}.")


def _ask(url: str | None, method: str, path: str, body: object = None) -> Any:
    import msgspec

    async def work(client: "Client") -> bytes:
        return await ask(client, method, path, None if body is None else msgspec.json.encode(body))

    answer = with_client(url, work)
    return msgspec.json.decode(answer) if answer else None


def _print(names: tuple[str, ...], rows: list[list[str | None]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=name == "ID", overflow="fold")
    for row in rows:
        table.add_row(*(Text(value or "") for value in row))
    console().print(table)


def _short(text: str) -> str:
    plain = "".join(one if one.isprintable() else " " for one in text[:200])
    return plain if len(plain) <= 60 else plain[:59] + "…"
