"""Forks and retries of executions."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import DeploymentOption, ExecutionArgument, JsonFlag, NoteOption, UrlOption, parse_json
from perdure.cli.base.output import print_result

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.sdk.clients.client import Client
    from perdure.sdk.clients.forks import RetryOptions
    from perdure.wire.runs.executions import Execution

FromOption = Annotated[str | None, typer.Option("--from", metavar="STEP", help="The first step that runs again.")]
FreshKeysFlag = Annotated[
    bool, typer.Option("--fresh-keys", help="Give the steps new idempotency keys: services count them as new requests.")
]

FromEndFlag = Annotated[
    bool, typer.Option("--from-end", help="Keep all outcomes, failures included, and run the code on over them.")
]
KeepLaterFlag = Annotated[
    bool, typer.Option("--keep-later", help="Keep the outcomes of steps that the code called after the failure.")
]
RedoLaterFlag = Annotated[
    bool, typer.Option("--redo-later", help="Drop those outcomes: the steps run again if the code calls them again.")
]
PayloadOption = Annotated[str | None, typer.Option("--payload", help="Another input: JSON, @FILE, or -.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP=JSON", help="Replace the outcome of a kept step. May be repeated."),
]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", retry, fork)


def fork(
    id: ExecutionArgument,
    from_step: FromOption = None,
    payload: PayloadOption = None,
    edits: SetOption = None,
    deployment: DeploymentOption = None,
    fresh_keys: FreshKeysFlag = False,
    key: Annotated[str | None, typer.Option("--key", help="The readable key of the fork.")] = None,
    note: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start an execution that keeps another's outcomes up to a step."""
    from msgspec import Raw

    from perdure.sdk.clients.forks import ForkOptions

    steps = dict(parse_edit(one) for one in edits or ())
    options = ForkOptions(
        from_step=from_step, steps=steps, deployment_id=deployment, fresh_keys=fresh_keys, key=key, note=note
    )
    if payload is not None:
        options["payload"] = Raw(parse_json(payload, "--payload"))

    async def work(client: "Client") -> None:
        made = (await (await client.fork(id, **options)).get()).raw
        print_result(as_json, made, _words(made))

    with_client(url, work)


def retry(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The executions.")],
    from_step: FromOption = None,
    from_end: FromEndFlag = False,
    keep_later: KeepLaterFlag = False,
    redo_later: RedoLaterFlag = False,
    deployment: DeploymentOption = None,
    fresh_keys: FreshKeysFlag = False,
    note: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run final executions again from the failure.

    A refusal does not stop the command.
    """
    from perdure.wire.base.errors import LaterOutcomes, PerdureError, Unavailable

    options: RetryOptions = {
        "from_step": from_step,
        "from_end": from_end,
        "keep_later": keep_later,
        "redo_later": redo_later,
        "deployment_id": deployment,
        "fresh_keys": fresh_keys,
        "note": note,
    }
    refused: list[str] = []

    async def work(client: "Client") -> None:
        for id in ids:
            try:
                made = (await (await client.retry(id, **options)).get()).raw
            except Unavailable:
                raise
            except LaterOutcomes as error:
                refused.append(f"{error.message}\nperdure retry {id} --keep-later, --redo-later or --from STEP")
                continue
            except PerdureError as error:
                refused.append(error.message)
                continue
            print_result(as_json, made, _words(made))

    with_client(url, work)
    if refused:
        raise Refused("\n".join(refused))


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


def _words(made: "Execution") -> str:
    """
    >>> from msgspec import Raw
    >>> from perdure.wire.runs.executions import Execution
    >>> from perdure.wire.base.status import Phase
    >>> given = {"workflow_id": "w", "payload": Raw(b"1"), "created_at_us": 0, "retry_count": 0, "attempt": 0}
    >>> print(_words(Execution(id="7c1f", forked_from="7c1e", forked_at_step="pay", phase=Phase.QUEUED, **given)))
    7c1f runs 7c1e again from 'pay'.
    Follow it: perdure wait 7c1f
    """
    where = "" if made.forked_at_step is None else f" from {made.forked_at_step!r}"
    on = "" if made.deployment_id is None else f" on deployment {made.deployment_id!r}"
    return f"{made.id} runs {made.forked_from} again{where}{on}.\nFollow it: perdure wait {made.id}"
