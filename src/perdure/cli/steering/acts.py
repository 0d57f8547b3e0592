"""Pending calls and acts."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import call
from perdure.cli.base.filters import Options, chosen, taking
from perdure.cli.base.options import ExecutionArgument, JsonFlag, NoteOption, UrlOption, parse_json
from perdure.cli.base.output import print_list, print_result, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.wire.steering.acts import Action, PendingCall


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", pending)
    add_commands(app, "Run", act)


def pending(id: ExecutionArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List pending calls, and how to act on them."""
    from perdure.cli.base.render import cut, date_time
    from perdure.wire.steering.acts import GetPending

    calls = call(url, GetPending(id)).items
    print_list(
        as_json,
        calls,
        ("KEY", "KIND", "NAME", "SINCE", "DUE", "TRIES", "ERROR"),
        lambda one: (
            (one.key or "(the execution)", "" if one.key else "dim"),
            one.kind.value,
            one.child_id or one.name or "",
            date_time(one.since_us),
            date_time(one.due_at_us),
            str(one.tries or ""),
            (cut(one.error or "", 80), "red"),
        ),
        empty="Nothing is pending.",
        whole=("KEY", "SINCE", "DUE"),
    )
    if calls and not as_json:
        say()
        for line in command_lines(id, calls):
            say(line)


def command_lines(id: str, calls: "Sequence[PendingCall]") -> "list[str]":
    """
    >>> from perdure.wire.steering.acts import Action, PendingCall, PendingKind
    >>> command_lines("7c1e", [PendingCall(key="my step", kind=PendingKind.TIMER, actions=[Action.FIRE])])
    ["perdure act 7c1e 'my step' --fire"]
    """
    found = []
    for one in calls:
        place = id if one.key is None else f"{id} {shlex.quote(one.key)}"
        ways = [OPTIONS[action.value] + (" JSON" if action == "complete" else "") for action in one.actions]
        others = f"    (or {', '.join(ways[1:])})" if ways[1:] else ""
        found.append(f"perdure act {place} {ways[0]}{others}")
    return found


OPTIONS = {"try": "--try", "fire": "--fire", "complete": "--complete", "fail": "--fail", "time_out": "--time-out"}


def act_options(
    again: Annotated[
        bool, typer.Option("--try", help="Run a held step again with fresh tries, or a paused one now.")
    ] = False,
    fire: Annotated[bool, typer.Option("--fire", help="End a timer now.")] = False,
    complete: Annotated[
        str | None, typer.Option("--complete", help="Give it a value: JSON, @FILE, or - for the standard input.")
    ] = None,
    fail: Annotated[bool, typer.Option("--fail", help="Let it fail with its recorded error.")] = False,
    time_out: Annotated[bool, typer.Option("--time-out", help="Raise TimeoutError in the code that waits.")] = False,
) -> Options:
    """Raises `Refused` for no action or several."""
    from msgspec import Raw

    from perdure.wire.steering.acts import Action

    asked = zip(OPTIONS, (again, fire, complete is not None, fail, time_out), strict=True)
    actions = [Action(action) for action, is_asked in asked if is_asked]
    if len(actions) != 1:
        raise Refused(f"Say what to do with one of {', '.join(OPTIONS.values())}.")
    return chosen(act=actions[0], value=None if complete is None else Raw(parse_json(complete, "--complete")))


@taking(act_options)
def act(
    options: Options,
    id: ExecutionArgument,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="As `perdure pending ID` shows it. Without it: the held execution."),
    ] = None,
    error: Annotated[str | None, typer.Option("--error", help="With --fail: another error.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="With --try: the held execution goes on in this deployment.")
    ] = None,
    reason: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Decide a pending call, or how a held execution continues.

    The first outcome counts.
    """
    from perdure.wire.steering.acts import ActOnExecution

    given = chosen(key=key, error=error, deployment_id=deployment, note=reason)
    acted = call(url, ActOnExecution(id, options.pop("act"), **given, **options))
    print_result(as_json, acted, f"{_act_text(acted.action, acted.key)} (row {acted.seq} of the journal of {id}).")


def _act_text(action: "Action", key: "str | None") -> str:
    what = "The execution" if key is None else f"{key!r}"
    said = {
        "try": "runs again",
        "fire": "has fired",
        "complete": "has its value",
        "fail": "has failed",
        "time_out": "has timed out",
    }
    return f"{what} {said[action.value]}"
