"""Commands and groups of commands.

Functions import slow modules, so that `perdure --help` is fast.
"""

import functools
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from perdure.wire.base.errors import PerdureError

P = ParamSpec("P")

FAILED: Final = 1
"""The execution or check has failed."""
REFUSED: Final = 2
"""The command could not be carried out."""
CANCELLED: Final = 3
STILL_RUNNING: Final = 4
INTERRUPTED: Final = 130

DESTRUCTIVE: Final = frozenset({"cancel", "delete", "erase", "remove", "restore", "retire", "rm", "withdraw"})
"""No suggestion names these commands: a person might run one without a thought."""


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
        """Writes UTF-8 into pipes on Windows, and expands no arguments: JSON like `[1]` is not a file pattern."""
        if sys.platform == "win32":
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(encoding="utf-8")
        return super().main(*args, **{"windows_expand_args": False, **values})

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        every = self.commands
        if args and args[0] not in every:  # no command yet, so suggestions may follow
            self.commands = {name: command for name, command in every.items() if name not in DESTRUCTIVE}
        try:
            return super().resolve_command(ctx, args)
        finally:
            self.commands = every


class _Noun(_Group):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """A group without a command lists: `perdure queues --json` is `perdure queues ls --json`."""
        has_command = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if "ls" in self.commands and not has_command and not ctx.resilient_parsing:
            args = ["ls", *args]
        return super().parse_args(ctx, args)


def make_group(help: str, *, cls: type[TyperGroup] = _Group, **options: Any) -> typer.Typer:
    return typer.Typer(cls=cls, no_args_is_help=True, help=help, **options)


def add_group(
    app: typer.Typer,
    panel: str,
    name: str,
    help: str,
    *functions: Callable[..., None],
    others: Mapping[str, Callable[..., None]] | None = None,
) -> None:
    """The help hides the names in `others`."""
    group = make_group(help, cls=_Noun)
    add_commands(group, None, *functions)
    for other, function in (others or {}).items():
        _add(group, other, function, hidden=True)
    app.add_typer(group, name=name, rich_help_panel=panel)


def add_commands(app: typer.Typer, panel: str | None, *functions: Callable[..., None]) -> None:
    """A command has its function's name, and turns known errors into one line."""
    for function in functions:
        _add(app, function.__name__.rstrip("_"), function, rich_help_panel=panel)


def _add(app: typer.Typer, name: str, function: Callable[P, None], **options: Any) -> None:
    @functools.wraps(function)
    def guarded(*args: P.args, **values: P.kwargs) -> None:
        as_json = bool(values.get("as_json"))
        try:
            function(*args, **values)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Refused as error:
            _refuse(str(error), "REFUSED", as_json=as_json)
        except BrokenPipeError:
            for stream in (sys.stdout, sys.stderr):  # the reader is gone: exit without a traceback
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            problem = _known(error)
            if problem is None:
                raise
            _refuse(problem.message, problem.code, as_json=as_json)

    guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # for typer
    app.command(name, cls=_Command, **options)(guarded)


def _known(error: Exception) -> "PerdureError | None":
    """The error to show, or None for a bug."""
    import msgspec

    from perdure.wire.base.errors import BadRequest, PerdureError

    if isinstance(error, PerdureError):
        return error
    if isinstance(error, msgspec.ValidationError):
        return BadRequest(f"{error}.")
    if isinstance(error, OSError) and error.filename is not None:
        return BadRequest(f"{error.filename}: {error.strerror}")
    return None


def _refuse(message: str, code: str, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": message, "error_type": code}, ensure_ascii=False), err=True)
    else:
        typer.secho("perdure: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(message, err=True)
    raise typer.Exit(REFUSED)
