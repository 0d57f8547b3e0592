"""Shared by the commands: options, errors, output, a client.

Slow modules are imported where they are used, so that `perdure --help` is fast.
"""

import functools
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, ParamSpec, TextIO, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from rich.console import Console

    from perdure.sdk.client import Client
    from perdure.wire.errors import PerdureError

P = ParamSpec("P")
T = TypeVar("T")

FAILED: Final = 1
"""The execution or check has failed."""
REFUSED: Final = 2
"""The command could not be carried out."""
CANCELLED: Final = 3
STILL_RUNNING: Final = 4
INTERRUPTED: Final = 130

PATIENCE_SECONDS: Final = 3.0

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OnConflict = Literal["queue", "reject", "deliver"]
ON_CONFLICT: Final = typer.Option(
    "--on-conflict", help="Make it a turn of the session. While another turn is open: wait, be refused, or join it."
)
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The server, or several of one store: URL,URL. Default: PERDURE_URL, else the `perdure dev` of this "
        "folder, else http://127.0.0.1:8080.",
        show_default=False,
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="The store: a path, sqlite:PATH, or postgresql://… Default: PERDURE_STORE, else the `store` of "
        "PERDURE_SETTINGS, else perdure.db.",
        show_default=False,
    ),
]


class Refused(Exception):
    """The message says why and what to do."""


def _without_types_of_flags(params: list[Any]) -> list[Any]:
    """Hide `<bool>` in the help of flags, which take no value."""
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))


class _Group(TyperGroup):
    def main(self, *args: Any, **values: Any) -> Any:
        """On Windows, write UTF-8 into pipes, for JSON. Do not expand arguments: JSON like `[1]` is not a file pattern,
        and `$HOME` in it is not a variable."""
        if sys.platform == "win32":
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(encoding="utf-8")
        return super().main(*args, **{"windows_expand_args": False, **values})

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))


def group(help: str, **options: Any) -> typer.Typer:
    return typer.Typer(cls=_Group, no_args_is_help=True, help=help, **options)


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Add a command that turns known errors into one line."""

    def add(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **values: P.kwargs) -> None:
            as_json = bool(values.get("as_json"))
            try:
                with _interruptible():
                    function(*args, **values)
            except Refused as error:
                refuse(str(error), as_json=as_json)
            except BrokenPipeError:
                for stream in (sys.stdout, sys.stderr):  # the reader is gone: exit without a traceback
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                raise typer.Exit(INTERRUPTED) from None
            except Exception as error:
                problem = _known(error)
                if problem is None:
                    raise
                refuse(problem.message, problem.code, as_json=as_json)

        guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # for typer
        app.command(name, cls=_Command, **options)(guarded)
        return guarded

    return add


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _known(error: Exception) -> "PerdureError | None":
    """The error as a PerdureError, if the user can act on it."""
    import msgspec

    from perdure.wire.errors import BadRequest, PerdureError

    if isinstance(error, PerdureError):
        return error
    if isinstance(error, msgspec.ValidationError):
        return BadRequest(f"{error}.")
    if isinstance(error, OSError) and error.filename is not None:
        return BadRequest(f"{error.filename}: {error.strerror}")
    return None


def refuse(message: str, code: str = "REFUSED", *, as_json: bool = False) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": message, "error_type": code}, ensure_ascii=False), err=True)
    else:
        typer.secho("perdure: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(message, err=True)
    raise typer.Exit(REFUSED)


def say(text: str = "") -> None:
    typer.echo(text)


def note(text: str) -> None:
    """Print a line to stderr."""
    from perdure.cli.render import plain

    typer.echo(plain(text), err=True)


def emit(value: object) -> None:
    """One line of JSON, records as the API shows them."""
    import msgspec

    from perdure.wire.record import to_json

    typer.echo(msgspec.json.encode(to_json(value)).decode())


def console(*, stderr: bool = False) -> "Console":
    """It does not cut lines for a pipe."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            """Rich would exit with 1, which means a failed execution here."""
            raise BrokenPipeError

    made = Ours(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.file = cast("IO[str]", _Unpadded(sys.stderr if stderr else sys.stdout))
        if "COLUMNS" not in os.environ:
            made.width = 200
    return made


class _Unpadded:
    """Strips the blanks that fill a table's last column."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(re.sub(r" +(?=\n)", "", text))

    def flush(self) -> None:
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def with_client(url: str | None, work: "Callable[[Client], Awaitable[T]]", *, patience: float = PATIENCE_SECONDS) -> T:
    import asyncio

    from perdure.sdk.client import Client
    from perdure.sdk.credentials import find
    from perdure.sdk.http import HttpTransport

    async def main() -> T:
        access = find(url)
        async with Client(HttpTransport(access.urls, access.api_key, patience_seconds=patience)) as client:
            return await work(client)

    return asyncio.run(main())


async def ask(client: "Client", method: str, path: str, body: bytes | None = None) -> bytes:
    """All tries of a POST have the same Idempotency-Key."""
    from perdure.sdk.http import HttpTransport, fresh_key

    assert isinstance(client._transport, HttpTransport)
    return await client._transport.request(method, path, body, headers=fresh_key() if method == "POST" else b"")


def store_address(given: str | None) -> str:
    if given:
        return given
    from perdure.server.settings import load

    return load().store


def store_path(given: str | None) -> str:
    """Raises `Refused` for addresses of other databases."""
    address = store_address(given)
    if "://" in address and not address.startswith("sqlite://"):
        raise Refused(f"{place(address)!r} is not a file; this command works on SQLite stores.")
    return address.removeprefix("sqlite:").removeprefix("//")


def place(address: str) -> str:
    """A store's address without its password.

    >>> place("postgresql://perdure:secret@db/perdure?password=secret")
    'postgresql://perdure@db/perdure'
    >>> place("sqlite:perdure.db")
    'sqlite:perdure.db'
    """
    scheme, colon, rest = address.partition("://")
    if not colon:
        return address
    authority, slash, path = rest.partition("?")[0].partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"


def seconds_of(text: str, option: str) -> int:
    """A duration such as 90s, 15m, 2h or 7d. Raises `Refused`."""
    found = re.fullmatch(r"([0-9]{1,12})([smhd])", text)
    if found is None:
        raise Refused(f"{option} needs a number with a unit, such as 90s, 15m, 2h or 7d; got {text!r}.")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def parse_json(text: str, where: str) -> bytes:
    """JSON from the command line: text, `@file`, or `-` for standard input. Raises `Refused`."""
    from perdure.wire.codec import check_json
    from perdure.wire.errors import BadValue

    if text == "-":
        data = sys.stdin.buffer.read()
    elif text.startswith("@"):
        with open(text[1:], "rb") as file:
            data = file.read()
    else:
        data = text.encode("utf-8", "surrogateescape")
    try:
        check_json(data, where=where)
    except BadValue as error:
        hint = ""
        if not text.startswith(("@", "-")):
            hint = "; a text needs its quotes: '\"like this\"'"
        raise Refused(f"{error.message}{hint}.") from None
    return data.strip()
