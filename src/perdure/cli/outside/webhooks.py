"""Webhooks and their deliveries."""

from typing import Annotated

import typer

from perdure.cli.base.commands import Refused, add_group
from perdure.cli.base.connect import call
from perdure.cli.base.options import JsonFlag, UrlOption, check_choice
from perdure.cli.base.output import emit, print_list, print_result, say


def add_to(app: typer.Typer) -> None:
    help = "Call URLs when executions end."
    functions = (create, ls, delete, deliveries, redeliver, secret)
    add_group(app, "Serve", "webhooks", help, *functions, others={"list": ls, "rm": delete})


def create(
    target: Annotated[str, typer.Argument(metavar="URL", help="The URL to call, with https.")],
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Only of this workflow.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="A note on its purpose.")] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a webhook for ends of root executions."""
    from perdure.wire.outside.webhooks import CreateWebhook

    made = call(url, CreateWebhook(target, workflow, description))
    print_result(as_json, made, made.id, "Its messages are signed; `perdure webhooks secret` shows the secret.")


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List webhooks, newest first."""
    from perdure.wire.outside.webhooks import ListWebhooks

    print_list(
        as_json,
        call(url, ListWebhooks()).items,
        ("ID", "URL", "WORKFLOW", ""),
        lambda one: (one.id, one.url, one.workflow_id or "", one.description or ""),
        empty="No webhooks; make one with `perdure webhooks create URL`.",
        whole=("ID",),
    )


def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="The webhook, as `perdure webhooks ls` shows it.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a webhook.

    The server sends it nothing more.
    """
    from perdure.wire.outside.webhooks import DeleteWebhook

    call(url, DeleteWebhook(id))
    print_result(as_json, {"id": id, "deleted": True}, f"{id} is deleted.")


def deliveries(
    execution: Annotated[str | None, typer.Option("--execution", help="About this execution.")] = None,
    webhook: Annotated[str | None, typer.Option("--webhook", help="To this webhook.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=500)] = 20,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List deliveries and outcomes, newest first."""
    from perdure.cli.base.render import cut, date_time
    from perdure.wire.base.wording import plain
    from perdure.wire.outside.webhooks import DeliveryState, ListDeliveries

    check_choice("--state", state, [*DeliveryState])
    wanted = None if state is None else DeliveryState(state)
    found = call(url, ListDeliveries(execution, webhook, wanted, limit=limit)).items
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        filtered = (execution, webhook, state) != (None, None, None)
        say("No deliveries match." if filtered else "No deliveries.")
    for one in found:
        tried = f"{one.tries} {'try' if one.tries == 1 else 'tries'}"
        next_try = "" if one.next_at_us is None else f"next try at {date_time(one.next_at_us)}"
        status = "" if one.status is None else f"status {one.status}"
        answer = "".join(char if char.isprintable() else " " for char in (one.answer or "")[:200])
        say(f"{one.id}\n  to {plain(one.url)}")
        say("  " + ", ".join(filter(None, (one.state, tried, status, next_try, cut(answer, 60)))))


def redeliver(
    id: Annotated[str, typer.Argument(metavar="ID", help="The delivery, as `perdure webhooks deliveries` shows it.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a delivery again under the same id."""
    from perdure.wire.outside.webhooks import Redeliver

    made = call(url, Redeliver(id))
    print_result(as_json, made, f"{id} is sent again to {made.url}.")


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
    """Show or replace the signing secret.

    Needs a key with the role admin.
    """
    from perdure.cli.base.render import date_time
    from perdure.wire.people.signing import OVERLAP_HOURS, GetSigningSecret, RotateSigningSecret

    if not rotate and overlap_hours is not None:
        raise Refused("--overlap-hours goes with --rotate.")
    if rotate:
        found = call(url, RotateSigningSecret(OVERLAP_HOURS if overlap_hours is None else overlap_hours))
    else:
        found = call(url, GetSigningSecret())
    until = date_time(found.previous_until_us or None)
    print_result(as_json, found, found.secret, *([f"The previous secret also signs until {until}."] if until else []))
