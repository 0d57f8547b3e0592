"""Records as short text for models.

Texts of users are JSON strings on one line, so a result cannot look like another line or like words of the server.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from perdure.wire.agents.approvals import OpenApproval, OpenQuestion
from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL
from perdure.wire.base.times import duration
from perdure.wire.base.wording import moment, plain
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.insight.why import Why
from perdure.wire.runs.executions import Execution, LogLine, Row

ANSWER_CHARS: Final = 6_000
"""About 1,500 tokens."""
LIST_TOKENS: Final = 1_490
ROW_TOKENS_MAX: Final = 150
VALUE_CHARS: Final = 2_000
OUTCOME_CHARS: Final = 160
NAME_CHARS: Final = 40
KEPT_TOKENS_MIN: Final = 5
"""A shorter text says nothing."""
ID_CHARS_MIN: Final = 13
"""Characters of an id's milliseconds."""

_PART: Final = re.compile(r"[A-Za-z]+|[0-9]{1,3}|\n|[^\sA-Za-z0-9]")
_LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(text: str, most: int = OUTCOME_CHARS) -> str:
    """
    >>> print(quoted("a\\nb\\u202e", 20))
    "a\\nb\\u202e"
    """
    return cut(_visible(json.dumps(text, ensure_ascii=False)), most)


def value(data: Raw | bytes | None, most: int = VALUE_CHARS) -> str:
    """JSON on a single line."""
    if data is None:
        return "null"
    return cut(_visible(msgspec.json.format(bytes(data), indent=-1).decode()), most)


def _visible(text: str) -> str:
    """The same JSON, with escapes for characters invisible or turning the writing direction."""
    return text if text.isprintable() else "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def bounded(lines: Iterable[str], rest: str, chars: int = ANSWER_CHARS) -> str:
    """The first lines up to `chars` characters, then the line `rest` if lines were left out."""
    kept, size = list[str](), 0
    for line in lines:
        size += len(line) + 1
        if size > chars:
            return "\n".join([*kept, rest])
        kept.append(line)
    return "\n".join(kept)


def short_ids(ids: Sequence[str]) -> list[str]:
    """Beginnings of ids, just long enough to differ."""
    return [_beginning(id, ids) for id in ids]


def _beginning(id: str, ids: Sequence[str]) -> str:
    most = ID_CHARS_MIN
    while most < len(id) and any(one.startswith(id[:most]) for one in ids if one != id):
        most += 1
    return id[:most]


def tokens(text: str) -> int:
    """A count of tokens, not below the count of usual models.

    >>> tokens("completed"), tokens("order-48213")
    (2, 4)
    """
    return sum(-(-len(part) // 5) if part.isalpha() else 1 for part in _PART.findall(text))


def fitted(text: str, most: int) -> str:
    """Cut a text to `most` tokens."""
    while tokens(text) > most:
        text = cut(text, len(text) * 3 // 4)
    return text


def age(us: int) -> str:
    """
    >>> [age(seconds * 1_000_000) for seconds in (5, 300, 7_300, 200_000)]
    ['5s', '5m', '2h', '2d']
    """
    seconds = max(0, us) // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def executions(found: Sequence[ExecutionSummary], now_us: int) -> list[str]:
    """A line each: id, workflow, phase, age, then what is known. Long lists have short lines."""
    most = min(ROW_TOKENS_MAX, LIST_TOKENS // max(1, len(found)))
    ids = short_ids([one.id for one in found])
    return [_execution(one, id, now_us, most) for one, id in zip(found, ids, strict=True)]


def _execution(one: ExecutionSummary, id: str, now_us: int, most: int) -> str:
    end = f"{one.phase.value} {age(now_us - one.created_at_us)}"
    room = most - tokens(id) - tokens(end) - 1
    line = f"{id} {fitted(one.workflow_id, max(2, room // 2))} {end}"
    for name, text in (("key=", one.key), ("", one.details)):
        room = most - tokens(line) - tokens(name) - 2
        if text and room >= KEPT_TOKENS_MIN:
            line += f" {name}{fitted(quoted(text, VALUE_CHARS), room)}"
    return line


def execution(one: Execution, questions: Sequence[OpenQuestion], now_us: int) -> list[str]:
    ended = one.completed_at_us
    took = "" if one.started_at_us is None else f", for {duration((ended or now_us) - one.started_at_us)}"
    lines = [
        f"{one.id} {plain(one.workflow_id)} is {one.phase.value}{took}, created {moment(one.created_at_us)}",
        f"input: {value(one.payload)}",
    ]
    if one.key is not None:
        lines.append(f"key: {quoted(one.key)}")
    if one.root_execution_id is not None:
        lines.append(f"below: {one.root_execution_id}")
    if one.progress is not None and one.phase not in FINAL:
        lines.append(f"progress: {value(one.progress, OUTCOME_CHARS)}")
    if one.phase in FINAL:
        lines.append(f"error: {quoted(one.error, VALUE_CHARS)}" if one.error else f"result: {value(one.result)}")
    if one.retried_as is not None:
        lines.append(f"retried as: {one.retried_as}")
    return [*lines, *(f"asks: {question(each)}" for each in questions)]


def question(one: OpenQuestion | OpenApproval) -> str:
    """Lists of a project have no schemas."""
    found = one.answer_schema if isinstance(one, OpenQuestion) else None
    schema = "" if found is None else f" answer_schema={value(found, OUTCOME_CHARS * 3)}"
    return f"id={one.execution_id} step={quoted(one.step_key)} {value(one.data, OUTCOME_CHARS * 3)}{schema}"


def why(found: Why) -> list[str]:
    lines = [plain(found.sentence)]
    if found.remedy:
        lines.append(f"remedy: {plain(found.remedy)}")
    lines += [f"{quoted(fact.name)}: {_fact(fact.text, fact.at_us)}" for fact in found.facts]
    lines += [f"differs in {plain(one.what)}: {quoted(one.then)} → {quoted(one.now)}" for one in found.differences]
    for part in found.path or ():
        times = f" ({part.times} times)" if part.times > 1 else ""
        lines.append(f"{part.percent:g} % {part.kind.value} {quoted(part.name)} {part.seconds:.3g} s{times}")
    return lines


def _fact(text: str, at_us: int | None) -> str:
    parts = [*([quoted(text, OUTCOME_CHARS * 2)] if text else []), *([moment(at_us)] if at_us is not None else [])]
    return " ".join(parts)


def journal(rows: Sequence[Row], begun_us: int) -> list[str]:
    """A line each: number, seconds since the execution was created, kind, key and outcome."""
    return [_row(row, begun_us) for row in rows]


def _row(row: Row, begun_us: int) -> str:
    line = f"{row.seq} +{max(0, row.at_us - begun_us) / 1e6:.3f}s {row.kind.value}"
    if row.key is not None:
        line += f" {cut(plain(row.key), NAME_CHARS * 2)}"
    if row.tries > 1:
        line += f" after {row.tries} tries"
    if not row.ok:
        return f"{line} failed: {quoted(str(read_failure(row.value)))}"
    has_value = row.kind in (Kind.STEP, Kind.RESUME, Kind.EVENT, Kind.CHILD, Kind.COMPLETED)
    return f"{line} {value(row.value, OUTCOME_CHARS)}" if has_value else line


def logs(found: Sequence[LogLine]) -> list[str]:
    return [
        f"{line.n} {moment(line.at_us)[11:19]} {_LEVELS.get(line.level, line.level)} {quoted(line.text, 400)}"
        for line in found
    ]
