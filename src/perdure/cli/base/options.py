"""Options of several commands."""

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import typer

from perdure.cli.base.commands import Refused

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
PortOption = Annotated[
    int | None,
    typer.Option("--port", "-p", help="The port to listen on; 0 takes a free one. Default: 8080.", min=0, max=65_535),
]
RoleOption = Annotated[str, typer.Option("--role", help="read, write or admin; for a worker's key: work.")]
UserOption = Annotated[str | None, typer.Option("--user", help="The user it runs for.")]
DeploymentOption = Annotated[str | None, typer.Option("--deployment", help="The deployment that runs it.")]
ExecutionArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution.")]
NoteOption = Annotated[str | None, typer.Option("--note", help="Why. The server keeps it beside your name.")]


def parse_seconds(text: str, option: str) -> int:
    """Raises `Refused`."""
    found = re.fullmatch(r"([0-9]{1,12})([smhd])", text)
    if found is None:
        raise Refused(f"{option} needs a number with a unit, such as 90s, 15m, 2h or 7d; got {text!r}.")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def parse_moment(text: str, option: str) -> int:
    """Microseconds of a time (local without an offset) or of an age such as `15m`. Raises `Refused`."""
    from perdure.wire.base.times import microseconds

    if re.fullmatch(r"[0-9]{1,12}[smhd]", text):
        return max(0, time.time_ns() // 1_000 - parse_seconds(text, option) * 1_000_000)
    try:
        return max(0, microseconds(datetime.fromisoformat(text).astimezone()))
    except (ValueError, OverflowError):
        raise Refused(f"{option} needs a time or an age, such as 2026-01-31T14:00, 15m or 7d; got {text!r}.") from None


def parse_coming(text: str, option: str) -> int:
    """Microseconds of a clock time of today or tomorrow, a date, or a duration from now. Raises `Refused`."""
    from perdure.wire.base.times import microseconds

    if re.fullmatch(r"[0-9]{1,12}[smhd]", text):
        return time.time_ns() // 1_000 + parse_seconds(text, option) * 1_000_000
    now = datetime.now(UTC).astimezone().replace(tzinfo=None)
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}", text):
            hour, minute = text.split(":")
            coming = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
            coming += timedelta(days=coming <= now)
        else:
            coming = datetime.fromisoformat(text)
        return max(0, microseconds(coming.astimezone()))
    except (ValueError, OverflowError):
        raise Refused(f"{option} needs a coming time, such as 14:00, 2026-01-31T14:00 or 2h; got {text!r}.") from None


def parse_json(text: str, where: str) -> bytes:
    """JSON from the command line: text, `@file`, or `-` for standard input. Raises `Refused`."""
    from perdure.wire.base.codec import check_json
    from perdure.wire.base.errors import BadValue

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
        hint = "" if text.startswith(("@", "-")) else "; a text needs its quotes: '\"like this\"'"
        raise Refused(f"{error.message}{hint}.") from None
    return data.strip()


def check_choice(option: str, word: str | None, choices: list[str]) -> None:
    """Raises `Refused`."""
    if word is not None and word not in choices:
        raise Refused(f"{option} is {', '.join(choices[:-1])} or {choices[-1]}; got {word!r}.")
