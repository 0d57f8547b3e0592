"""Pending calls and acts."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import call
from perdure.cli.base.options import ExecutionArgument, JsonFlag, NoteOption, UrlOption, parse_json
from perdure.cli.base.output import print_list, print_result, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import Raw

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


TryFlag = Annotated[bool, typer.Option("--try", help="Run a held step again with fresh tries, or a paused one now.")]
FireFlag = Annotated[bool, typer.Option("--fire", help="End a timer now.")]
CompleteOption = Annotated[
    str | None, typer.Option("--complete", help="Give it a value: JSON, @FILE, or - for the standard input.")
]
FailFlag = Annotated[bool, typer.Option("--fail", help="Let it fail with its recorded error.")]
TimeOutFlag = Annotated[bool, typer.Option("--time-out", help="Raise TimeoutError in the code that waits.")]


def act(
    id: ExecutionArgument,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="As `perdure pending ID` shows it. Without it: the held execution."),
    ] = None,
    again: TryFlag = False,
    fire: FireFlag = False,
    complete: CompleteOption = None,
    fail: FailFlag = False,
    error: Annotated[str | None, typer.Option("--error", help="With --fail: another error.")] = None,
    time_out: TimeOutFlag = False,
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
    from perdure.wire.base.records import NULL
    from perdure.wire.steering.acts import ActOnExecution

    value = parse_value(complete)
    acted = call(
        url,
        ActOnExecution(
            id,
            action=chosen_action(again=again, fire=fire, complete=complete is not None, fail=fail, time_out=time_out),
            key=key,
            value=NULL if value is None else value,
            error=error,
            deployment_id=deployment,
            note=reason,
        ),
    )
    print_result(as_json, acted, f"{_words(acted.action, acted.key)} (row {acted.seq} of the journal of {id}).")


def chosen_action(*, again: bool, fire: bool, complete: bool, fail: bool, time_out: bool) -> "Action":
    """Raises `Refused` for no action or several."""
    from perdure.wire.steering.acts import Action

    asked = {
        Action.TRY: again,
        Action.FIRE: fire,
        Action.COMPLETE: complete,
        Action.FAIL: fail,
        Action.TIME_OUT: time_out,
    }
    actions = [action for action, is_asked in asked.items() if is_asked]
    if len(actions) != 1:
        raise Refused(f"Say what to do with one of {', '.join(OPTIONS.values())}.")
    return actions[0]


def parse_value(complete: str | None) -> "Raw | None":
    """Raises `Refused`."""
    from msgspec import Raw

    return None if complete is None else Raw(parse_json(complete, "--complete"))


def _words(action: "Action", key: "str | None") -> str:
    what = "The execution" if key is None else f"{key!r}"
    said = {
        "try": "runs again",
        "fire": "has fired",
        "complete": "has its value",
        "fail": "has failed",
        "time_out": "has timed out",
    }
    return f"{what} {said[action.value]}"
