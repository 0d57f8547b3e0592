"""Runs of workflows."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure.cli.base.commands import CANCELLED, FAILED, STILL_RUNNING, Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import (
    ON_CONFLICT,
    DeploymentOption,
    ExecutionArgument,
    JsonFlag,
    OnConflict,
    UrlOption,
    UserOption,
    parse_json,
)
from perdure.cli.base.output import emit, note, say

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client
    from perdure.wire.agents.budgets import BudgetSpec
    from perdure.wire.runs.executions import Execution
    from perdure.wire.runs.requests import StartItem


WATCH_PATIENCE_SECONDS: Final = 60.0

WAIT_SECONDS: Final = 30.0


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", run, wait)


def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")],
    input: Annotated[
        str | None, typer.Option("--input", "-i", help="Its input: JSON, @FILE, or - for the standard input.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="A readable key. The same key and input give the same execution.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-t", help="Stop watching after this many seconds; the run goes on.", min=0),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start it, print its id, do not watch.")] = False,
    queue: Annotated[str | None, typer.Option("--queue", help="In this queue.")] = None,
    concurrency_key: Annotated[
        str | None, typer.Option("--concurrency-key", help="The key whose limit it counts against.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher goes first.")] = 0,
    delay: Annotated[float | None, typer.Option("--delay", help="Start after this many seconds.", min=0)] = None,
    session: Annotated[str | None, typer.Option("--session", help="The session it belongs to.")] = None,
    on_conflict: Annotated[OnConflict | None, ON_CONFLICT] = None,
    user: UserOption = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="NAME=VALUE; may be repeated.")] = None,
    deployment: DeploymentOption = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Its limits: usd=2,tokens=100000,calls=50,seconds=600,on_exceed=finish."),
    ] = None,
    accept_early: Annotated[
        bool, typer.Option("--accept-early", help="Start it even before any worker has registered; it waits for one.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and nothing else.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a workflow, watch it and print its result.

    Exit codes: 0 completed, 1 failed, 2 not started, 3 cancelled, 4 still running: --timeout passed, or the server was
    away for a minute.
    """
    import msgspec
    from msgspec import Raw

    from perdure.sdk.clients.starts import start_item
    from perdure.wire.base.errors import BadValue

    item = start_item(
        workflow,
        None,
        key=key,
        queue=queue,
        concurrency_key=concurrency_key,
        priority=priority,
        session_id=session,
        user_id=user,
        tags=_pairs(tag, "--tag") if tag else None,
        delay=delay,
        on_conflict=on_conflict,
        deployment_id=deployment,
    )
    payload = Raw(parse_json(input or "null", "--input"))
    item = msgspec.structs.replace(item, payload=payload, accept_early=accept_early, budget=_budget(budget))

    try:
        id, existing = with_client(url, partial(_start, item=item))
    except BadValue as error:
        if input is None and str((error.details or {}).get("path", "")).startswith("payload"):
            note(f"{workflow!r} takes an input: perdure run {workflow} --input JSON")
        raise
    if existing and not quiet:
        note(f"An execution of {workflow!r} with the key {key!r} and this input exists already; it is shown: {id}")
    elif not (quiet or detach or as_json):
        note(f"Started {id}")
    watch = None if detach else partial(_watch, id=id, timeout=timeout, quiet=quiet or as_json)
    execution, unserved = _follow_to_end(url, id, watch, as_json=as_json)
    if detach:
        if as_json:
            emit(execution)
        else:
            say(id)
        return
    raise typer.Exit(_print_end(execution, unserved, as_json=as_json))


def wait(
    id: ExecutionArgument,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-t", help="Stop waiting after this many seconds; the run goes on.", min=0),
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Wait for the end of an execution and print its result.

    Exit codes: 0 completed, 1 failed, 2 unknown, 3 cancelled, 4 still running: --timeout passed, or the server was away
    for a minute.
    """
    now, unserved = with_client(url, partial(_fetch, id=id))  # refuses an unknown id or server without patience
    if unserved:
        note(f"{id} is {now.phase.value}{unserved or '.'}")
    found = _follow_to_end(url, id, partial(_wait, id=id, timeout=timeout), as_json=as_json)
    raise typer.Exit(_print_end(*found, as_json=as_json))


def _follow_to_end(
    url: str | None, id: str, watch: "Callable[[Client], Awaitable[None]] | None", *, as_json: bool
) -> tuple["Execution", str]:
    """The execution after `watch`, and a note if no worker serves it. Exits if the server is away."""
    from perdure.wire.base.errors import Unavailable

    try:
        if watch is not None:
            with_client(url, watch, patience=WATCH_PATIENCE_SECONDS)
        return with_client(url, partial(_fetch, id=id))
    except Unavailable as error:
        if as_json:
            emit({"id": id})
        note(f"{error.message}\n{id} is not watched any more; `perdure logs -f {id}` watches it again.")
        raise typer.Exit(STILL_RUNNING) from None


def _print_end(execution: "Execution", unserved: str, *, as_json: bool) -> int:
    """The exit code."""
    from perdure.wire.agents.agent_runs import early_end
    from perdure.wire.base.status import Phase

    id = execution.id
    if as_json:
        emit(execution)
    elif execution.phase is Phase.COMPLETED:
        say(_pretty(execution.result))
        early = early_end(execution.progress)
        if early is not None:
            note(f"{id} {early}")
    elif execution.phase is Phase.FAILED:
        note(f"{id} failed: {execution.error}")
    elif execution.phase is Phase.CANCELLED:
        note(f"{id} was cancelled by {execution.cancelled_by or 'an unknown user'}.")
    else:
        note(f"{id} goes on ({execution.phase.value}){unserved or '.'} `perdure logs -f {id}` watches it again.")
    codes = {Phase.COMPLETED: 0, Phase.FAILED: FAILED, Phase.CANCELLED: CANCELLED}
    return codes.get(execution.phase, STILL_RUNNING)


async def _start(client: "Client", item: "StartItem") -> tuple[str, bool]:
    from perdure.wire.base.errors import from_code
    from perdure.wire.base.records import Problem

    answer = (await client._transport.start([item]))[0]
    if isinstance(answer, Problem):
        raise from_code(answer.error_type, answer.error, answer.details)
    return answer.execution_id, answer.existing


async def _fetch(client: "Client", id: str) -> tuple["Execution", str]:
    """The execution, and words for what keeps it from running."""
    from perdure.cli.base.render import said
    from perdure.wire.base.status import Phase

    execution = (await client.get(id)).raw
    why = await client.why(id) if execution.phase is Phase.QUEUED else None
    return execution, "" if why is None or why.rule is None else f". {said(why.sentence)}"


async def _watch(client: "Client", id: str, timeout: float | None, quiet: bool) -> None:
    import asyncio
    from contextlib import suppress

    from perdure.cli.runs.watching import RunWatch, follow

    if quiet:
        await _wait(client, id, timeout)
        return
    with suppress(TimeoutError), RunWatch(id) as watch:
        async with asyncio.timeout(timeout):
            async for item in follow(client, id, look_seconds=watch.look_seconds):
                watch.see(item)


async def _wait(client: "Client", id: str, timeout: float | None) -> None:
    import asyncio
    from contextlib import suppress

    from perdure.wire.base.status import FINAL
    from perdure.wire.runs.executions import GetExecution

    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while (await client._transport.call(GetExecution(id, wait=WAIT_SECONDS))).phase not in FINAL:
                pass


def _budget(given: str | None) -> "BudgetSpec | None":
    import msgspec

    from perdure.wire.agents.budgets import BudgetSpec, check_budget
    from perdure.wire.base.errors import BadValue

    if given is None:
        return None
    try:
        budget = msgspec.convert(
            _pairs([part.strip() for part in given.split(",")], "--budget"), BudgetSpec, strict=False
        )
        check_budget(budget)
    except (msgspec.ValidationError, BadValue) as error:
        raise Refused(f"--budget {given}: {error}. It takes usd, tokens, calls, seconds and on_exceed.") from None
    return budget


def _pairs(given: list[str], option: str) -> dict[str, str]:
    """NAME=VALUE, each name once. Raises `Refused`."""
    pairs: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise Refused(f"{option} needs NAME=VALUE; got {one!r}.")
        if name in pairs:
            raise Refused(f"{option} gives {name!r} two values, {pairs[name]!r} and {text!r}; give one.")
        pairs[name] = text
    return pairs


def _pretty(result: Any) -> str:
    text = bytes(result if result is not None else b"null").decode()
    if len(text) <= 100:
        return text
    import msgspec

    try:
        return msgspec.json.format(text, indent=2)
    except msgspec.MsgspecError:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
