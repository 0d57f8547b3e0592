"""Prints executions."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from perdure.cli.base.output import Cell, console, fields_of, print_facts, print_list, print_pairs, print_table, say
from perdure.cli.base.render import (
    PHASE_STYLE,
    clock_time,
    cut,
    date_time,
    kind_style,
    outcome,
    said,
    subject,
    took,
    traceback,
    value,
    zone,
)
from perdure.cli.runs.conversation import conversation, spent
from perdure.cli.runs.waits import went_on_with
from perdure.wire.agents.agent_runs import early_end
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import duration, rfc3339
from perdure.wire.base.wording import decoded_object, plain
from perdure.wire.runs.executions import Act, Execution, LogLine, Row

WARNINGS_SHOWN: Final = 5


def print_executions(
    found: Sequence[Execution], below: Mapping[str, str] | None = None, *, empty: str, as_json: bool = False
) -> None:
    below = below or {}
    folded = ("BELOW",) if any(below.values()) else ()
    print_list(
        as_json,
        found,
        ("ID", "WORKFLOW", "PHASE", "CREATED", "TOOK", *folded, "KEY", "OUTCOME"),
        lambda one: (
            one.id,
            one.workflow_id,
            (one.phase.value, PHASE_STYLE[one.phase]),
            date_time(one.created_at_us),
            took(one.started_at_us, one.completed_at_us),
            *(below.get(one.id, "") for _ in folded),
            one.key or "",
            cut(
                one.error
                or early_end(one.progress)
                or (progress(one) if one.result is None else value(one.result, 40)),
                60,
            ),
        ),
        empty=empty,
        whole=("ID", "PHASE", "CREATED", "TOOK", *folded),
    )


def print_execution(one: Execution, sentence: str, *, losses: int) -> None:
    phase = Text(one.phase.value, style=PHASE_STYLE[one.phase])
    if sentence:
        phase.append(f"  {said(sentence)}", style="default")
    elif one.phase is Phase.FAILED and one.retried_as is None:
        phase.append(f"  run it again from what failed: perdure retry {one.id}")
    facts: list[tuple[str, Cell | None]] = [
        ("id", one.id),
        ("workflow", one.workflow_id),
        ("phase", phase),
        ("key", one.key),
        ("deployment", one.deployment_id),
        ("queue", one.queue_name if one.concurrency_key is None else f"{one.queue_name} / {one.concurrency_key}"),
        ("session", None if one.session_id == one.id else one.session_id),
        ("user", one.user_id),
        ("tags", None if one.tags is None else value(one.tags)),
        ("parent", one.parent_execution_id),
        ("root", one.root_execution_id),
        ("batch", one.batch_id),
        ("fork of", one.forked_from and f"{one.forked_from}{_from(one.forked_at_step)}"),
        ("retried as", one.retried_as),
        ("created", date_time(one.created_at_us)),
        ("due", _due(one)),
        ("took", took(one.started_at_us, one.completed_at_us)),
        ("tries", str(one.retry_count + 1) if one.retry_count else None),
        ("losses", str(losses) if losses else None),
        ("worker", one.assigned_to_worker),
        ("progress" if early_end(one.progress) is None else "outcome", progress(one)),
        ("input", value(one.payload, 400)),
        ("result", None if one.result is None else value(one.result, 400)),
        ("error", None if one.error is None else (one.error, "red")),
        ("cancelled by", one.cancelled_by),
    ]
    print_facts(facts)


def _from(step: str | None) -> str:
    return "" if step is None else f", from {step!r}"


def _due(one: Execution) -> str:
    what = {Phase.WAITING: "wakes", Phase.QUEUED: "starts"}.get(one.phase)
    if what is None or one.due_at_us is None:
        return ""
    left_us = one.due_at_us - time.time_ns() // 1_000
    return f"{what} at {date_time(one.due_at_us)}" + (f" (in {duration(left_us)})" if left_us > 0 else "")


def print_journal(rows: list[Row], execution: Execution, limit: int) -> None:
    table: list[tuple[Cell, ...]] = []
    first = max(len(rows) - limit, 0)
    for n, row in enumerate(rows[first:], first + 1):
        text = went_on_with(rows, n) if row.kind is Kind.WAITING else outcome(row)
        table.append(
            (
                str(row.seq),
                clock_time(row.at_us),
                "kept" if row.at_us < execution.created_at_us else duration(row.at_us - execution.created_at_us),
                (row.kind.value, kind_style(row.kind, ok=row.ok)),
                subject(row),
                "" if row.started_at_us is None else duration(max(0, row.at_us - row.started_at_us)),
                (text, "" if row.ok else "red"),
            )
        )
    at = f"AT {zone(execution.created_at_us)}"
    columns = ("SEQ", at, "AFTER", "WHAT", "KEY", "TOOK", "OUTCOME")
    say()
    print_table(columns, table, whole=("SEQ", at, "AFTER", "WHAT", "TOOK"), right=("SEQ", "AFTER", "TOOK"))
    if execution.phase is Phase.COMPLETED:
        return  # failures were handled or retried
    if told := [where for row in rows if (where := traceback(row))]:
        say()
        console().print(Text(told[-1], style="dim"), soft_wrap=True)


def print_acts(acts: Sequence[Act]) -> None:
    if not acts:
        return
    say("\nActs")
    for act in acts:
        what = act.action.replace("_", " ") + (f" {act.key!r}" if act.key is not None else "")
        why = f": {act.note}" if act.note else ""
        say(plain(f"  row {act.seq}, {clock_time(act.at_us)}: {what}, by {act.acted_by}{why}"))


def print_warnings(logged: list[LogLine]) -> None:
    """A replay may repeat warnings, so each is printed once."""
    grave = {line.text: line for line in logged if line.level >= logging.WARNING}
    if not grave:
        return
    say()
    for line in list(grave.values())[-WARNINGS_SHOWN:]:
        style = "red" if line.level >= logging.ERROR else "yellow"
        console().print(Text(f"{clock_time(line.at_us)}  {plain(line.text)}", style=style), soft_wrap=True)
    if len(grave) > WARNINGS_SHOWN:
        say(f"and {len(grave) - WARNINGS_SHOWN} warnings before these; `perdure logs` shows all lines.")


def print_conversation(execution: Execution, rows: list[Row], logged: list[LogLine]) -> None:
    styles = {"user": "bold cyan", "model": "bold green", "tool": "magenta", "person": "bold yellow"}
    styles |= dict.fromkeys(("guard", "refused"), "yellow")
    pairs: list[tuple[Cell, Cell]] = []
    for line in conversation(execution, rows, logged):
        text = Text(plain(line.text), style="red" if line.failed else "")
        if line.note:
            text.append(f"  {line.note}", style="dim")
        pairs.append(((line.who, "red" if line.failed else styles.get(line.who, "")), text))
    say()
    print_pairs(pairs)
    say(f"\n{spent(rows)}; --journal shows every row.")


def json_line(item: Row | LogLine) -> dict[str, Any]:
    if isinstance(item, Row):
        return {"event": "row", **fields_of(item)}
    return {"event": "log", "at": rfc3339(item.at_us), "level": item.level, "text": item.text}


def text_line(item: Row | LogLine) -> Text:
    line = Text(clock_time(item.at_us) + "  ", style="dim")
    if isinstance(item, Row):
        line.append(f"{item.kind.value:<13} ", style=kind_style(item.kind, ok=item.ok) or "bold")
        line.append(subject(item), style="default")
        if said := outcome(item, 200):
            line.append(f"  {said}", style="default" if item.ok else "red")
        if where := traceback(item):
            line.append(f"\n{where}", style="dim")
    else:
        style = "red" if item.level >= logging.ERROR else "yellow" if item.level >= logging.WARNING else "default"
        line.append(f"{'log':<13} ", style="dim")
        name = logging.getLevelName(item.level)
        line.append(plain(item.text if item.level == logging.INFO else f"{name}: {item.text}"), style=style)
    return line


def progress(one: Execution) -> str:
    found = decoded_object(one.progress)
    done, total, text = found.get("done"), found.get("total"), found.get("text")
    parts: list[str] = []
    if isinstance(done, float) and total is None and 0 <= done <= 1:
        parts = [f"{done:.0%}"]
    elif isinstance(done, int | float):
        parts = [f"{done:g}" if total is None else f"{done:g}/{total:g}"]
    return " ".join([*parts, *([str(text)] if text else [])])
