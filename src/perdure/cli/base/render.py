"""Times, durations, phases and values for people."""

import re
import time
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw

from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import duration, microseconds
from perdure.wire.base.wording import plain
from perdure.wire.runs.executions import Row

PHASE_STYLE: Final = {
    Phase.QUEUED: "cyan",
    Phase.RUNNING: "blue",
    Phase.WAITING: "magenta",
    Phase.CANCELLING: "yellow",
    Phase.HELD: "bold yellow",
    Phase.BLOCKED: "bold red",
    Phase.COMPLETED: "green",
    Phase.FAILED: "red",
    Phase.CANCELLED: "yellow",
}
_KIND_STYLE: Final = {
    Kind.STEP_FAILED: "yellow",
    Kind.LOST: "yellow",
    Kind.RETRIED: "yellow",
    Kind.FORKED: "bold cyan",
    Kind.BLOCKED: "bold red",
    Kind.HELD: "bold yellow",
    Kind.COMPLETED: "green",
    Kind.FAILED: "red",
    Kind.CANCELLED: "yellow",
    Kind.CANCEL: "yellow",
}
_MOVES: Final = frozenset({Kind.CLAIMED, Kind.WAITING, Kind.WOKEN, Kind.RELEASED, Kind.LOST, Kind.UNBLOCKED})


def clock_time(at_us: int | None) -> str:
    """
    >>> len(clock_time(1_750_000_000_000_000))
    12
    """
    return "" if at_us is None else _local(at_us).strftime("%H:%M:%S.%f")[:-3]


def date_time(at_us: int | None) -> str:
    return "" if at_us is None else f"{_local(at_us):%Y-%m-%d %H:%M:%S} {zone(at_us)}"


def day_of(at_us: int) -> str:
    return f"{_local(at_us):%Y-%m-%d} {zone(at_us)}"


def zone(at_us: int) -> str:
    return _local(at_us).isoformat()[-6:]


def local(text: str | None) -> str:
    """
    >>> len(local("2026-06-01T09:30:00.000000+00:00"))
    26
    """
    return "" if text is None else date_time(microseconds(datetime.fromisoformat(text)))


def _local(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, UTC).astimezone()


def value(data: Raw | bytes | None, most: int = 80) -> str:
    """
    >>> value(b'"' + b"x" * 100 + b'"', 10)
    '"xxxxxxxx…'
    """
    if data is None:
        return ""
    return cut(plain(" ".join(bytes(data).decode("utf-8", "replace").split("\n"))), most)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def outcome(row: Row, most: int = 80) -> str:
    if row.kind is Kind.RETRIED:
        text = row.name or ""
    elif not row.ok:
        text = cut(str(read_failure(row.value)), most)
    elif row.kind in _MOVES or bytes(row.value) == b"null":
        text = ""
    else:
        text = value(row.value, most)
    if row.tries > 1:
        text = f"{text} (try {row.tries})" if not row.ok else f"{text} (after {row.tries} tries)"
    return plain(text.strip())


def traceback(row: Row) -> str:
    """Empty for an error that an earlier row holds."""
    failure = read_failure(row.value)
    if row.ok or row.kind not in (Kind.STEP, Kind.FAILED) or failure.type in ("StepFailed", "ChildFailed"):
        return ""
    return plain(str(failure.detail or "").rstrip())


def subject(row: Row) -> str:
    """The thing that a row is about: a step's key, a topic, a worker."""
    if row.kind in (Kind.RETRIED, Kind.TIMER):
        return "" if row.key == "timer" else row.key or ""
    if row.kind is Kind.FORKED:
        return f"from execution {row.name}"
    if row.kind in (Kind.CLAIMED, Kind.LOST, Kind.RELEASED):
        return f"{'with' if row.kind is Kind.LOST else 'by'} worker {(row.name or '')[:8]}"
    if row.key is None:
        return plain(row.name or "")
    return plain(row.key if not row.name or row.name == row.key else f"{row.key} ({row.name})")


def kind_style(kind: Kind, *, ok: bool = True) -> str:
    return "red" if kind is Kind.STEP and not ok else _KIND_STYLE.get(kind, "")


def took(started_us: int | None, ended_us: int | None) -> str:
    return "" if started_us is None or ended_us is None else duration(ended_us - started_us)


def in_local_time(text: str, now_us: int) -> str:
    """Turns the UTC times of explanations into local ones. A time of today has no date."""

    def local(match: re.Match[str]) -> str:
        return short_moment(microseconds(datetime.fromisoformat(match[1]).replace(tzinfo=UTC)), now_us)

    return _MOMENT.sub(local, text)


def short_moment(at_us: int, now_us: int) -> str:
    shown = date_time(at_us)
    return shown.split(" ")[1] if day_of(at_us) == day_of(now_us) else shown


_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")


def said(text: str) -> str:
    """Words of an explanation, now."""
    return plain(in_local_time(text, time.time_ns() // 1_000))
