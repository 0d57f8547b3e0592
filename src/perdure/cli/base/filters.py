"""The filters of executions, as options of several commands."""

import functools
import inspect
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from perdure.cli.base.commands import Refused
from perdure.cli.base.options import parse_moment

if TYPE_CHECKING:
    from perdure.wire.runs.executions import ListFilters


Options = dict[str, Any]
"""Options of a request, by their names in `BulkOptions`."""


def chosen(**options: Any) -> Options:
    """Leave out None and False."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def taking(*sources: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of all sources. The command gets the results of the sources as its first arguments."""
    options = [[*inspect.signature(source).parameters.values()] for source in sources]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            given = [
                source(**{one.name: values.pop(one.name) for one in its})
                for source, its in zip(sources, options, strict=True)
            ]
            function(*given, **values)

        functools.update_wrapper(command, function)
        own = inspect.signature(function).parameters.values()
        every = [*chain.from_iterable(options), *(one for one in own if get_origin(one.annotation) is Annotated)]
        parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in every]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def read_filters(
    status: Annotated[
        str | None,
        typer.Option("--status", help="pending, running, completed, failed or cancelled; several with commas."),
    ] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", help="More exact than a status: queued, waiting, blocked, …")
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="Of this workflow; several with commas.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="With this key.")] = None,
    key_part: Annotated[
        str | None, typer.Option("--key-part", help="With a key that begins so, or a later word of which does.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="With this tag, as NAME=VALUE or NAME.")] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="With this value of a searchable field: payload.customer.id=7.")
    ] = None,
    error: Annotated[str | None, typer.Option("--error", help="Failed with these words in the error.")] = None,
    retried: Annotated[
        bool | None, typer.Option("--retried/--not-retried", help="Replaced by a retry, or not.")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="In this queue; several with commas.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Of this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Of this user.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", help="The children of this execution.")] = None,
    root: Annotated[
        str | None, typer.Option("--root", help="Everything below this root, without the root itself.")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Of this batch.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Of this deployment; several with commas.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Created within this time, or since then: 90s, 15m, 2026-01-31.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", help="Created before this time, or longer ago: 2026-01-31T14:00, 7d.")
    ] = None,
) -> "ListFilters":
    from perdure.wire.runs.executions import ListFilters

    return ListFilters(
        phases=_phases(status, phase),
        workflow_id=workflow,
        session_id=session,
        user_id=user,
        queue_name=queue,
        batch_id=batch,
        parent_execution_id=parent,
        root_execution_id=root,
        deployment_id=deployment,
        key=key,
        key_part=key_part,
        tag=tag,
        field=field,
        error=error,
        retried=retried,
        created_after_us=None if since is None else parse_moment(since, "--since"),
        created_before_us=None if before is None else parse_moment(before, "--before"),
    )


def _phases(status: str | None, phase: str | None) -> list[str] | None:
    from perdure.wire.base.status import STATUS, Phase, Status

    if status is None and phase is None:
        return None
    wanted = {*Phase}
    for words, known, of in ((status, [*Status], STATUS.get), (phase, [*Phase], None)):
        if words is None:
            continue
        chosen = {word.strip() for word in words.split(",") if word.strip()} or {words}
        if unknown := chosen - {*known}:
            raise Refused(f"{sorted(unknown)[0]!r} is not one of {', '.join(known)}.")
        wanted = {one for one in wanted if (of(one) if of is not None else one) in chosen}
    return [one.value for one in wanted]
