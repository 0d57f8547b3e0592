"""`perdure …` that kills itself at one of its failpoints: with `FAULTS_FAILPOINT=after_commit:37` the 37th time it gets
there. Without the variable it is `perdure …`.

The points are around what makes a change true and known: before and after a transaction's COMMIT, after its hints are
out, and before the answer to a request that changes something is sent. `in_fork:5` is before the fifth statement of a
fork or a retry. The end of `after_commit:1:fork` counts from the first fork that has run all its statements.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from perdure.cli.main import app
from perdure.store.base.interface import Verb
from perdure.store.drivers.sqlite import SQLiteStore

IN_FORK = "in_fork"
POINTS = ("before_commit", "after_commit", "after_notify", "before_reply")

_point, _times, _from = (os.environ.get("FAULTS_FAILPOINT", "") + "::").split(":")[:3]
_left = int(_times or 0)
_counts = _from != "fork" or _point == IN_FORK


def reach(point: str) -> None:
    """The program is there: the last time it may."""
    global _left
    if point == _point and _counts:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _around_sqlite() -> None:
    commit, answer = SQLiteStore._commit, SQLiteStore._answer_group

    def committing(self: SQLiteStore, *values: Any) -> None:
        reach("before_commit")
        commit(self, *values)

    def answering(self: SQLiteStore, *values: Any) -> None:
        reach("after_commit")
        answer(self, *values)
        reach("after_notify")

    SQLiteStore._commit = committing  # type: ignore[assignment,method-assign]  # this file is there to do so
    SQLiteStore._answer_group = answering  # type: ignore[assignment,method-assign]


def _around_postgres() -> None:
    import asyncpg

    execute = asyncpg.Connection.execute

    async def executing(self: Any, query: str, *values: Any, **options: Any) -> str:
        commits = query == "COMMIT"
        if commits:
            reach("before_commit")
        status: str = await execute(self, query, *values, **options)
        if commits:
            reach("after_commit")
        elif "NOTIFY" in query:
            reach("after_notify")
        return status

    asyncpg.Connection.execute = executing  # type: ignore[method-assign]


def _around_forks() -> None:
    start = Verb.start

    @coroutine
    def counted(verb: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        global _counts
        sent = None
        while True:
            try:
                asked = verb.send(sent)
            except StopIteration as stop:
                _counts = True
                return stop.value
            reach(IN_FORK)
            sent = yield asked

    def starting(self: Verb[Any]) -> Coroutine[Any, Any, Any]:
        return counted(start(self)) if self.name == "fork" else start(self)

    Verb.start = starting  # type: ignore[method-assign]


def _around_answers() -> None:
    from perdure.server.http.router import Router

    answer = Router._respond

    async def answering(self: Router, scope: Any, *values: Any) -> Any:
        known = await answer(self, scope, *values)
        if scope["method"] != "GET":
            reach("before_reply")
        return known

    Router._respond = answering  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    if _point in (*POINTS, IN_FORK):
        _around_sqlite()
        _around_postgres()
        _around_answers()
        _around_forks()
    app()
