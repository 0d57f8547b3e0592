"""Follows a run: its journal and log, merged by time."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from perdure.cli.base.output import console
from perdure.cli.runs.execution import progress, text_line
from perdure.wire.base.status import FINAL
from perdure.wire.base.wording import decoded_object
from perdure.wire.runs.executions import Execution, GetSteps, LogLine, Row

if TYPE_CHECKING:
    from rich.progress import Task

    from perdure.sdk.clients.client import Client

ROWS_PAGE: Final = 500
LINES_SHOWN: Final = 40
"""A longer run gets a bar."""
GRAVE: Final = 30
"""Log lines of this level or above are always shown."""


async def follow(
    client: "Client", execution_id: str, *, to_the_end: bool = True, look_seconds: float = 10.0
) -> AsyncIterator[Row | LogLine | Execution]:
    """Yields rows and lines, the execution after each look, and the final one last.

    `look_seconds` pass between looks without news.
    """
    after = after_log = 0
    while True:
        # Read the execution first: a final one has all its rows.
        execution = (await client.get(execution_id)).raw
        rows = await client.journal(execution_id, after=after, limit=ROWS_PAGE)
        lines = await client.logs(execution_id, after=after_log, limit=ROWS_PAGE)
        items: list[tuple[int, int, Row | LogLine]] = [(row.at_us, 0, row) for row in rows]
        items += [(line.at_us, 1, line) for _, line in lines]
        for _, _, item in sorted(items, key=lambda item: item[:2]):
            yield item
        after = rows[-1].seq if rows else after
        after_log = lines[-1][0] if lines else after_log
        ended = any(row.kind.value in FINAL for row in rows)
        is_last = execution.phase in FINAL or not to_the_end
        if len(rows) == ROWS_PAGE or len(lines) == ROWS_PAGE or (ended and execution.phase not in FINAL):
            continue
        if is_last and rows:  # large values may end a page early
            continue
        yield execution
        if is_last:
            return
        op = GetSteps(execution_id, after, limit=1, after_log=after_log, wait=look_seconds)
        await client._transport.call(op)


class RunWatch:
    """Prints the first items that `see` receives, then one line of progress. As a block in a terminal, shows a bar."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._out = console(stderr=True)
        self.look_seconds = 1.0 if self._out.is_terminal else 10.0
        self._lines = self._rows = 0
        self._said = ""
        self._bar: Any = None

    def __enter__(self) -> "RunWatch":
        if self._out.is_terminal:
            self._bar = _bar(self._out)
            self._task = self._bar.add_task("queued", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def see(self, item: Row | LogLine | Execution) -> None:
        if isinstance(item, Execution):
            self._show_progress(item)
            return
        self._rows += isinstance(item, Row)
        self._lines += 1
        is_grave = not item.ok if isinstance(item, Row) else item.level >= GRAVE
        if self._lines <= LINES_SHOWN or is_grave or (isinstance(item, Row) and item.kind.value in FINAL):
            self._out.print(text_line(item), soft_wrap=True)
        if self._lines == LINES_SHOWN:
            self._out.print(f"… `perdure logs -f {self._id}` shows every line.", style="dim", soft_wrap=True)

    def _show_progress(self, one: Execution) -> None:
        said = f"{one.phase.value} {progress(one)}".strip()
        if self._bar is None:
            if self._lines > LINES_SHOWN and said != self._said:
                self._out.print(f"{said}, {self._rows:,} rows", style="dim", soft_wrap=True)
            self._said = said
            return
        found = decoded_object(one.progress)
        done, total = found.get("done"), found.get("total")
        if isinstance(done, int | float) and not isinstance(done, bool):
            total = 1.0 if total is None and done <= 1 else total
            self._bar.update(self._task, completed=done, total=total if isinstance(total, int | float) else None)
        else:
            self._bar.update(self._task, completed=self._rows)
        self._bar.update(self._task, description=said)


def _bar(out: Any) -> Any:
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class IfTotal(ProgressColumn):
        """Is empty while the total is unknown."""

        def __init__(self, shown: Callable[["Task"], Any]) -> None:
            super().__init__()
            self._shown = shown

        def render(self, task: "Task") -> Any:
            return Text("") if task.total is None else self._shown(task)

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        IfTotal(BarColumn(bar_width=30).render),
        IfTotal(lambda task: Text(_rate(task), style="dim")),
        IfTotal(TimeRemainingColumn().render),
        console=out,
        transient=True,
    )


def _rate(task: "Task") -> str:
    speed = task.finished_speed or task.speed
    if speed is None or not task.total or task.total <= 1:
        return ""
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s" if speed >= 0.1 else f"{speed * 60:.1f}/min"
