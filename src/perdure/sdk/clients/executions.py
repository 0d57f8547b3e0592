"""Executions as programs read them: decoded values, and times as `datetime`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from msgspec import Raw

from perdure.sdk.payloads.values import decode
from perdure.wire.base.status import Phase, Status
from perdure.wire.base.times import moment
from perdure.wire.runs.executions import Execution, ExecutionPage

R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)

SHOWN_CHARS = 80


class _Copied(Generic[T_co]):
    """An attribute copied from `raw`, where it has the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, one: Any, owner: type | None = None) -> T_co:
        if one is None:
            return self  # type: ignore[return-value]  # for help()
        value: T_co = getattr(one.raw, self._name)
        return value


class _Moment(_Copied[T_co]):
    """An attribute copied from `raw`, where its name ends in `_us`."""

    def __get__(self, one: Any, owner: type | None = None) -> T_co:
        if one is None:
            return self  # type: ignore[return-value]  # for help()
        at_us = getattr(one.raw, f"{self._name}_us")
        return None if at_us is None else moment(at_us)  # type: ignore[return-value]  # T_co says if it may be None


class ExecutionInfo(Generic[R_co]):
    """A snapshot of an execution.

    `status` is pending, running, completed, failed or cancelled; `phase` is more precise. Times are in UTC. At `due_at`
    the phase ends by itself. `raw` has every field as sent by the server, with `payload`, `result`, `progress` and
    `tags` as undecoded JSON.

    >>> one = await client.get(handle.id)                                       # doctest: +SKIP
    >>> one.status, one.input, one.result, one.tags                             # doctest: +SKIP
    ('completed', {'id': 7}, 'paid', {'shop': 'berlin'})
    """

    def __init__(self, raw: Execution, *, input_type: Any = Any, result_type: Any = Any) -> None:
        self.raw = raw
        self._types = input_type, result_type

    id = _Copied[str]()
    workflow_id = _Copied[str]()
    status = _Copied[Status]()
    phase = _Copied[Phase]()
    key = _Copied[str | None]()
    error = _Copied[str | None]()
    created_at = _Moment[datetime]()
    started_at = _Moment[datetime | None]()
    completed_at = _Moment[datetime | None]()
    cancelled_at = _Moment[datetime | None]()
    cancelled_by = _Copied[str | None]()
    due_at = _Moment[datetime | None]()
    deployment_id = _Copied[str | None]()
    assigned_to_worker = _Copied[str | None]()
    queue_name = _Copied[str | None]()
    concurrency_key = _Copied[str | None]()
    session_id = _Copied[str | None]()
    user_id = _Copied[str | None]()
    parent_execution_id = _Copied[str | None]()
    root_execution_id = _Copied[str | None]()
    forked_from = _Copied[str | None]()
    forked_at_step = _Copied[str | None]()
    retried_as = _Copied[str | None]()
    run_timeout_seconds = _Copied[int | None]()
    retry_count = _Copied[int]()
    attempt = _Copied[int]()

    @cached_property
    def input(self) -> Any:
        """Raises `BadValue` for an input unfit for the workflow's type."""
        return decode(bytes(self.raw.payload), self._types[0], where="input")

    @cached_property
    def result(self) -> R_co | None:
        """None before the end. Raises `BadValue` for a result unfit for the workflow's type."""
        value: R_co | None = None
        if self.raw.result is not None:
            value = decode(bytes(self.raw.result), self._types[1], where="result")
        return value

    @cached_property
    def progress(self) -> Any:
        """The last report: `ctx.progress` gives a dict with `done`, `total` and `text`. None without a report."""
        return _plain(self.raw.progress)

    @cached_property
    def tags(self) -> dict[str, str]:
        return _plain(self.raw.tags) or {}

    def __repr__(self) -> str:
        raw, shown = self.raw, [self.id, f"{self.workflow_id} {self.phase}"]
        if self.key is not None:
            shown.append(f"key={self.key!r}")
        shown.append(f"input={_cut(raw.payload)}")
        shown += [f"{name}={_cut(getattr(raw, name))}" for name in ("progress", "tags", "result") if getattr(raw, name)]
        if self.error is not None:
            shown.append(f"error={self.error[:SHOWN_CHARS]!r}")
        return f"<Execution {', '.join(shown)}, created_at={self.created_at:%Y-%m-%dT%H:%M:%SZ}>"


class ExecutionInfoPage:
    """Some of the found executions, newest first. `async for` continues with the following pages."""

    def __init__(self, raw: ExecutionPage, following: Callable[[str], Coroutine[Any, Any, ExecutionInfoPage]]) -> None:
        self._following = following
        self.executions: Sequence[ExecutionInfo[Any]] = [ExecutionInfo(one) for one in raw.executions]
        self.next_cursor = raw.next_cursor
        """None on the last page."""
        self.searched_to = None if raw.searched_to_us is None else moment(raw.searched_to_us)
        """An empty page with a cursor: the search has reached executions created at this time."""
        self.searchable_from = None if raw.searchable_from_us is None else moment(raw.searchable_from_us)
        """Executions created earlier are not searched yet: the searchable field is new."""

    async def next(self) -> ExecutionInfoPage | None:
        """The next page, or None."""
        return None if self.next_cursor is None else await self._following(self.next_cursor)

    async def __aiter__(self) -> AsyncGenerator[ExecutionInfo[Any], None]:
        page: ExecutionInfoPage | None = self
        while page is not None:
            for one in page.executions:
                yield one
            page = await page.next()


class ExecutionSearch:
    """The answer of `Client.list`: `await` takes one page, `async for` all executions."""

    def __init__(self, page: Callable[[], Coroutine[Any, Any, ExecutionInfoPage]]) -> None:
        self.page = page

    def __await__(self) -> Generator[Any, None, ExecutionInfoPage]:
        return self.page().__await__()

    async def __aiter__(self) -> AsyncGenerator[ExecutionInfo[Any], None]:
        async for one in await self:
            yield one


def _plain(value: Raw | None) -> Any:
    return None if value is None else decode(bytes(value))


def _cut(value: Raw) -> str:
    text = repr(_plain(value))
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"
