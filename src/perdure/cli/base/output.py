"""Output for people and for programs."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, Union, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

T = TypeVar("T")
Cell = Union[str, tuple[str, str], "Text"]

LEGIBLE: Final = 12
"""Least width of a column that wraps."""


def say(text: str = "") -> None:
    typer.echo(text)


def note(text: str) -> None:
    from perdure.wire.base.wording import plain

    typer.echo(plain(text), err=True)


def emit(value: object) -> None:
    """Print a line of JSON, with records as the API shows them."""
    import msgspec

    from perdure.wire.base.record import to_json

    typer.echo(msgspec.json.encode(to_json(value)).decode())


def fields_of(record: object) -> dict[str, Any]:
    import msgspec

    from perdure.wire.base.record import to_json

    return msgspec.json.decode(msgspec.json.encode(to_json(record)), type=dict[str, msgspec.Raw])


def print_result(as_json: bool, value: object, text: str, *notes: str) -> None:
    if as_json:
        emit(value)
        return
    say(text)
    for one in notes:
        note(one)


def print_list(
    as_json: bool,
    found: Sequence[T],
    columns: Sequence[str],
    row: Callable[[T], Sequence[Cell]],
    *,
    empty: str,
    whole: Sequence[str] = (),
) -> None:
    if as_json:
        for one in found:
            emit(one)
    elif found:
        print_table(columns, map(row, found), whole=whole)
    else:
        say(empty)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, whole: Sequence[str] = (), right: Sequence[str] = ()
) -> None:
    """Columns in `whole` do not wrap. If another column would be narrower than `LEGIBLE`, no column wraps: the terminal
    wraps long rows. So ids stay in one piece."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    texts = [[_text(cell) for cell in row] for row in rows]
    wanted = [max([len(name), *(row[n].cell_len for row in texts)]) for n, name in enumerate(columns)]
    needed = [width if name in whole else min(width, LEGIBLE) for name, width in zip(columns, wanted, strict=True)]
    gaps = 2 * (len(columns) - 1)
    screen = console()
    is_narrow = sum(needed) + gaps > screen.width
    if is_narrow:
        screen.width = sum(wanted) + gaps
        screen.file = cast("IO[str]", _Unpadded(screen.file))
    for name in columns:
        no_wrap = is_narrow or name in whole
        table.add_column(name, justify="right" if name in right else "left", no_wrap=no_wrap, overflow="fold")
    for row in texts:
        table.add_row(*row)
    screen.print(table)


def print_pairs(pairs: Iterable[tuple[Cell, Cell]], style: str = "") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(_text(name), _text(value))
    console().print(table)


def print_rows(rows: Iterable[Sequence[Cell]]) -> None:
    """A table without a header. The last column wraps; the first one names the row."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        if not table.columns:
            for n in range(len(row)):
                last = n == len(row) - 1
                table.add_column(style="" if n else "dim", no_wrap=not last, overflow="fold" if last else "ellipsis")
        table.add_row(*map(_text, row))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, Cell | None]]) -> None:
    """Empty facts are left out."""
    shown = ((name, _text(fact)) for name, fact in facts if fact is not None)
    print_pairs([(name, text) for name, text in shown if text], style="dim")


def _text(cell: Cell) -> "Text":
    from rich.text import Text

    from perdure.wire.base.wording import plain

    if isinstance(cell, Text):
        return cell
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(plain(text), style=style)


def console(*, stderr: bool = False) -> "Console":
    """A console that does not cut lines for a pipe."""
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

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(re.sub(r" +((?:\x1b\[[\d;]*m)*)(?=\n)", r"\1", text))

    def flush(self) -> None:
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def print_commands(commands: Sequence[str]) -> None:
    """Commands that an explanation proposes, below a blank line."""
    from perdure.wire.base.wording import plain

    if commands:
        say()
    for command in commands:
        say(plain(f"  {command}"))
