"""The options of a start, by a client or by workflow code, and the matching fields of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, TypedDict

from perdure.sdk.base.checks import checked_int, checked_name, checked_seconds, checked_tags, checked_text
from perdure.sdk.workflows.workflow import Queue
from perdure.wire.agents.budgets import BudgetSpec, OnExceed, check_budget, usd_micros
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.codec import check_text
from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import VALUE_BYTES_MAX
from perdure.wire.base.times import microseconds


class Budget:
    """Limits on the spending of an execution and its descendants for calls to models. None sets no limit of a kind.

    `usd` is money, `tokens` are input and output together, `calls` are calls to models, `seconds` count from the
    budget's start. At most one call exceeds a limit. When nothing is left, the run asks for more ("ask"), ends with its
    results ("finish"), or fails with `BudgetExceeded` ("fail"). Raises `BadValue` for an impossible limit, or without
    any.

        >>> Budget(usd=2, calls=50)
        Budget(usd=2, calls=50, on_exceed='ask')
    """

    def __init__(
        self,
        *,
        usd: float | Decimal | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        seconds: int | None = None,
        on_exceed: Literal["ask", "finish", "fail"] = "ask",
    ) -> None:
        if on_exceed not in [*OnExceed]:
            raise ValueError(f"on_exceed is one of {', '.join(OnExceed)}; got {on_exceed!r}.")
        self._given = {"usd": usd, "tokens": tokens, "calls": calls, "seconds": seconds}
        self._spec = BudgetSpec(None if usd is None else usd_micros(usd), tokens, calls, seconds, OnExceed(on_exceed))
        check_budget(self._spec)

    def spec(self) -> BudgetSpec:
        return self._spec

    def __repr__(self) -> str:
        given = [f"{name}={value}" for name, value in self._given.items() if value is not None]
        return f"Budget({', '.join([*given, f'on_exceed={self._spec.on_exceed.value!r}'])})"


class CommonOptions(TypedDict, total=False):
    """Options of every start. A `delay` is in seconds."""

    queue: Queue | str | None
    concurrency_key: str | None
    priority: int
    session_id: str | None
    user_id: str | None
    tags: Mapping[str, str] | None
    delay: float | timedelta | None
    run_timeout_seconds: int | None
    budget: Budget | None
    on_conflict: Literal["queue", "reject", "deliver"] | None


class StartOptions(CommonOptions, total=False):
    """`key` names the execution within its workflow; `at` is a time with a zone."""

    key: str | None
    at: datetime | None
    deployment_id: str | None
    webhook_url: str | None


class ChildOptions(CommonOptions, total=False):
    """`execution_key` is the child's readable key within its workflow, `key` the call's key in the journal.

    `on_conflict` makes the child a turn of another session (`session_id`). A refusal raises `ChildFailed`.
    """

    execution_key: str | None
    key: str | None


def start_fields(options: Mapping[str, Any], known: type[CommonOptions]) -> dict[str, Any]:
    """The fields of a `StartItem` for these options.

    Raises `BadValue` for each fault that would fail a whole request of many starts, and `TypeError` for an option
    missing from `known`.
    """
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known.__annotations__:
            raise TypeError(f"This start has no option {name!r}; it takes {', '.join(known.__annotations__)}.")
        if value is not None or name == "priority":  # a number, always
            field, checked = _FIELDS[name]
            fields[field] = checked(value, name)
    return fields


def _queue(value: Queue | str, where: str) -> str:
    return checked_name(value.name if isinstance(value, Queue) else value, where)


def _seconds(value: float | timedelta, where: str) -> float:
    return checked_seconds(value.total_seconds() if isinstance(value, timedelta) else value, where)


def checked_moment(value: datetime, where: str) -> int:
    if not isinstance(value, datetime):
        raise BadValue(f"{where}: must be a datetime, got a `{type(value).__name__}`")
    if value.tzinfo is None:
        raise BadValue(f"`{where}` needs a time zone; got {value!r}. Use datetime.now(UTC) or datetime(…, tzinfo=…).")
    return microseconds(value)


def _url(value: str, where: str) -> str:
    url = checked_text(value, where)
    check_text(url, where=where, max_bytes=VALUE_BYTES_MAX)
    return url


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "key": ("key", checked_name),
    "queue": ("queue_name", _queue),
    "concurrency_key": ("concurrency_key", checked_name),
    "priority": ("priority", checked_int),
    "session_id": ("session_id", checked_name),
    "user_id": ("user_id", checked_name),
    "tags": ("tags", lambda value, _: checked_tags(value)),
    "delay": ("delay_seconds", _seconds),
    "at": ("start_at_us", checked_moment),
    "deployment_id": ("deployment_id", checked_name),
    "run_timeout_seconds": ("run_timeout_seconds", checked_int),
    "webhook_url": ("webhook_url", _url),
    "on_conflict": ("on_conflict", lambda value, _: OnConflict(value)),
    "budget": ("budget", lambda value, _: value.spec()),
    "execution_key": ("key", checked_name),
}
"""The field of each option, and the check that makes the field's value."""
