"""Forks and retries of executions."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.filters import Options, chosen, taking
from perdure.cli.base.options import DeploymentOption, ExecutionArgument, JsonFlag, NoteOption, UrlOption, parse_json
from perdure.cli.base.output import print_result

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.sdk.clients.client import Client
    from perdure.wire.runs.executions import Execution
    from perdure.wire.steering.forks import ForkExecution, RetryExecution

FromOption = Annotated[str | None, typer.Option("--from", metavar="STEP", help="The first step that runs again.")]
FreshKeysFlag = Annotated[
    bool, typer.Option("--fresh-keys", help="Give the steps new idempotency keys: services count them as new requests.")
]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", retry, fork)


def fork_options(
    from_step: FromOption = None,
    payload: Annotated[str | None, typer.Option("--payload", help="Another input: JSON, @FILE, or -.")] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STEP=JSON", help="Replace the outcome of a kept step. May be repeated."),
    ] = None,
    fresh_keys: FreshKeysFlag = False,
) -> Options:
    from msgspec import Raw

    from perdure.wire.steering.forks import Edits

    given = None if payload is None else Raw(parse_json(payload, "--payload"))
    steps = dict(parse_edit(one) for one in edits or ())
    return chosen(from_step=from_step, edits=Edits(given, steps) if payload or steps else None, fresh_keys=fresh_keys)


def retry_options(
    from_step: FromOption = None,
    from_end: Annotated[
        bool, typer.Option("--from-end", help="Keep all outcomes, failures included, and run the code on over them.")
    ] = False,
    keep_later: Annotated[
        bool, typer.Option("--keep-later", help="Keep the outcomes of steps that the code called after the failure.")
    ] = False,
    redo_later: Annotated[
        bool,
        typer.Option("--redo-later", help="Drop those outcomes: the steps run again if the code calls them again."),
    ] = False,
    fresh_keys: FreshKeysFlag = False,
) -> Options:
    return chosen(
        from_step=from_step, from_end=from_end, keep_later=keep_later, redo_later=redo_later, fresh_keys=fresh_keys
    )


@taking(fork_options)
def fork(
    options: Options,
    id: ExecutionArgument,
    deployment: DeploymentOption = None,
    key: Annotated[str | None, typer.Option("--key", help="The readable key of the fork.")] = None,
    note: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start an execution that keeps another's outcomes up to a step."""
    from perdure.wire.steering.forks import ForkExecution

    op = ForkExecution(id, deployment_id=deployment, key=key, note=note, **options)
    with_client(url, lambda client: _make(client, op, as_json=as_json))


@taking(retry_options)
def retry(
    options: Options,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The executions.")],
    deployment: DeploymentOption = None,
    note: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run final executions again from the failure.

    A refusal does not stop the command.
    """
    from perdure.wire.base.errors import LaterOutcomes, PerdureError, Unavailable
    from perdure.wire.steering.forks import RetryExecution

    refused: list[str] = []

    async def work(client: "Client") -> None:
        for id in ids:
            op = RetryExecution(id, deployment_id=deployment, note=note, **options)
            try:
                await _make(client, op, as_json=as_json)
            except Unavailable:
                raise
            except LaterOutcomes as error:
                refused.append(f"{error.message}\nperdure retry {id} --keep-later, --redo-later or --from STEP")
            except PerdureError as error:
                refused.append(error.message)

    with_client(url, work)
    if refused:
        raise Refused("\n".join(refused))


async def _make(client: "Client", op: "ForkExecution | RetryExecution", *, as_json: bool) -> None:
    fork = await client._transport.call(op)
    made = (await client.get(fork.execution_id)).raw
    print_result(as_json, made, _fork_text(made))


def parse_edit(text: str) -> "tuple[str, Raw]":
    """Raises `Refused`.

    >>> key, value = parse_edit("quote=7")
    >>> key, bytes(value)
    ('quote', b'7')
    """
    from msgspec import Raw

    key, separator, value = text.partition("=")
    if not key or not separator:
        raise Refused(f"--set is STEP=JSON, such as --set 'quote=7'; got {text!r}.")
    return key, Raw(parse_json(value, f"--set {key}"))


def _fork_text(made: "Execution") -> str:
    """
    >>> from msgspec import Raw
    >>> from perdure.wire.runs.executions import Execution
    >>> from perdure.wire.base.status import Phase
    >>> given = {"workflow_id": "w", "payload": Raw(b"1"), "created_at_us": 0, "retry_count": 0, "attempt": 0}
    >>> print(_fork_text(Execution(id="7c1f", forked_from="7c1e", forked_at_step="pay", phase=Phase.QUEUED, **given)))
    7c1f runs 7c1e again from 'pay'.
    Follow it: perdure wait 7c1f
    """
    where = "" if made.forked_at_step is None else f" from {made.forked_at_step!r}"
    on = "" if made.deployment_id is None else f" on deployment {made.deployment_id!r}"
    return f"{made.id} runs {made.forked_from} again{where}{on}.\nFollow it: perdure wait {made.id}"
