"""The service of executions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace
from uuid_utils import uuid7

from perdure.engine.claims import Claims
from perdure.engine.core import Core
from perdure.engine.start_checks import check_item
from perdure.store.verbs import queries, starts, transitions, waits
from perdure.store.verbs.idempotency import Idempotency
from perdure.store.verbs.starts import New
from perdure.wire.approvals import Resumed
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name, check_text
from perdure.wire.errors import BadRequest, BadValue, NotFound, PerdureError, Unavailable
from perdure.wire.fields import checked_cursor as checked_cursor  # services import it from here for now
from perdure.wire.fields import checked_id as checked_id
from perdure.wire.fields import is_uuid as is_uuid
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Execution, Problem, Row
from perdure.wire.requests import Claimed, ExecutionPage, Finished, ListFilters, LogLine, Started, StartItem, WaitReply

if TYPE_CHECKING:
    from msgspec import Raw


LIST_MAX = 500
CLOSED = "The engine was closed while the result was awaited; the execution goes on when the store is opened again."


class Executions:
    """All times come from the engine's clock, all ids are made here."""

    def __init__(self, core: Core, claims: Claims) -> None:
        self._claims = claims
        self._core = core
        self._awaited: set[asyncio.Future[Finished]] = set()

    def close(self) -> None:
        """`result` raises Unavailable from now on."""
        for future in self._awaited:
            if not future.done():
                future.set_exception(Unavailable(CLOSED))

    async def start(
        self, project_id: str, items: Sequence[StartItem], *, idempotency: Idempotency | None = None
    ) -> list[Started | Problem]:
        """Start independent executions, with an answer for each."""
        answers: list[Started | Problem | None] = []
        news: list[New] = []
        for item in items:
            try:
                check_item(item)
                if item.webhook_url is not None:
                    await self._core.outbound.check_url(item.webhook_url, "webhook_url")
                if item.batch_id is not None:
                    raise BadValue("`batch_id` is made by the batch route and by `map_children`; leave it out.")
                answers.append(None)
                news.append(New(str(uuid7()), item))
            except PerdureError as error:
                answers.append(Problem(error.message, error.code, error.details))
        core = self._core
        poll = self._claims.take_waiting(project_id) if news else None
        handed: list[Claimed] = []
        try:
            given, handed = await core.store.write(
                starts.start(
                    project_id=project_id,
                    news=news,
                    now_us=core.clock.now_us(),
                    idempotency=idempotency,
                    waiting_claim=None if poll is None else poll.waiting_claim,
                )
            )
        finally:
            if poll is not None:
                self._claims.settle(poll, handed)
        for new, answer in zip(news, given, strict=False):
            if isinstance(answer, Started) and answer.execution_id == new.id:
                core.end_listeners.expect(project_id, new.id)
        if len(given) == len(items):
            return given
        rest = iter(given)
        return [next(rest) if answer is None else answer for answer in answers]

    async def batch(
        self, project_id: str, items: Sequence[StartItem], *, idempotency: Idempotency | None = None
    ) -> list[Started]:
        """Start all or none, under one batch id. Items without a session share a new one."""
        for item in items:
            check_item(item)
            if item.webhook_url is not None:
                await self._core.outbound.check_url(item.webhook_url, "webhook_url")
        answers = await self._core.store.write(
            starts.start_batch(
                project_id=project_id,
                news=[New(str(uuid7()), item) for item in items],
                batch_id=str(uuid7()),
                now_us=self._core.clock.now_us(),
                idempotency=idempotency,
            )
        )
        return [answer for answer in answers if isinstance(answer, Started)]

    async def get(self, project_id: str, execution_id: str) -> Execution:
        """Raises NotFound."""
        return await self._core.store.read(queries.get(project_id=project_id, execution_id=checked_id(execution_id)))

    async def find(self, project_id: str, workflow_id: str, key: str) -> str:
        """Raises NotFound."""
        return await self._core.store.read(queries.find_by_key(project_id=project_id, workflow_id=workflow_id, key=key))

    async def wait(self, project_id: str, ids: Sequence[str], seconds: float) -> WaitReply:
        """Wait until one is final, at most `seconds`. The reply has as many final ones as fit."""
        ids = [checked_id(id) for id in ids]
        found: list[Finished] = []
        some = asyncio.Event()

        def tell(finished: Finished) -> None:
            found.append(finished)
            some.set()

        listeners = self._core.end_listeners
        for id in ids:
            listeners.listen(project_id, id, tell)
        try:
            # Listen before the query, so that no end is missed.
            done, missing = await self._core.store.read(queries.finished(project_id=project_id, ids=ids))
            if done or missing or seconds <= 0 or self._core.closing:
                return WaitReply(done, missing)
            try:
                async with asyncio.timeout(seconds):
                    await some.wait()
            except TimeoutError:
                pass
            return WaitReply(list(found), [])
        finally:
            for id in ids:
                listeners.forget(project_id, id, tell)

    async def result(self, project_id: str, execution_id: str) -> Finished:
        """Wait without a limit. Raises NotFound."""
        execution_id = checked_id(execution_id)
        listeners = self._core.end_listeners
        known, finished = listeners.recent(project_id, execution_id)
        if finished is not None:
            return finished
        if self._core.closing:
            raise Unavailable(CLOSED)
        future: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self._awaited.add(future)

        def tell(finished: Finished) -> None:
            if not future.done():
                future.set_result(finished)

        listeners.listen(project_id, execution_id, tell)
        try:
            if not known:
                done, missing = await self._core.store.read(
                    queries.finished(project_id=project_id, ids=(execution_id,))
                )
                if missing:
                    raise NotFound(f"Execution {execution_id!r} does not exist.")
                if done:
                    return done[0]
            return await future
        finally:
            self._awaited.discard(future)
            listeners.forget(project_id, execution_id, tell)

    async def how_ended(self, project_id: str, execution_id: str) -> Finished | None:
        """Without the result. None while it is open. Raises NotFound."""
        return await self._core.store.read(
            queries.how_ended(project_id=project_id, execution_id=checked_id(execution_id))
        )

    async def journal(
        self,
        project_id: str,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        bytes_max: int = REPLY_BYTES_MAX,
    ) -> tuple[list[Row], bool]:
        """Rows after a seq, up to the one that reaches `bytes_max`, and whether there may be more."""
        id = checked_id(execution_id)
        return await self._core.store.read(
            queries.journal(project_id=project_id, execution_id=id, after=after, limit=limit, bytes_max=bytes_max)
        )

    async def logs(
        self, project_id: str, execution_id: str, after: int = 0, limit: int = 500
    ) -> list[tuple[int, LogLine]]:
        """Lines after a number."""
        return await self._core.store.read(
            queries.logs(project_id=project_id, execution_id=checked_id(execution_id), after=after, limit=limit)
        )

    def watch_cursor(self, execution_id: str) -> int:
        """Take it before reading journal or log: `watch` then misses nothing."""
        return self._core.notifier.cursor(("written", checked_id(execution_id)))

    async def watch(self, execution_id: str, cursor: int, seconds: float = 1.0) -> bool:
        """Wait until journal or log grew, at most `seconds`."""
        return await self._core.notifier.wait(("written", checked_id(execution_id)), cursor, seconds)

    async def cancel(self, project_id: str, execution_id: str, by: str = "user") -> Execution:
        """Cancel also all descendants. Raises NotCancellable if it is final."""
        await self._core.store.write(
            transitions.cancel(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                cancelled_by=by,
                now_us=self._core.clock.now_us(),
                grace_us=self._core.grace_us,
            )
        )
        return await self.get(project_id, execution_id)

    async def delete(self, project_id: str, execution_id: str) -> None:
        """Delete also all descendants. Raises Conflict while one is open."""
        await self._core.store.write(queries.delete(project_id=project_id, execution_id=checked_id(execution_id)))

    async def resume(
        self,
        project_id: str,
        execution_id: str,
        step_key: str,
        data: Raw,
        *,
        answered_by: str,
        question_id: str | None = None,
    ) -> Resumed:
        """Answer a suspended step, now or before it asks. With `question_id` only that question. Raises Conflict if
        another answer stands."""
        check_name(step_key, where="step_key", max_bytes=KEY_BYTES_MAX)
        check_json(bytes(data), where="data")
        return await self._core.store.write(
            waits.resume(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                step_key=step_key,
                data=data,
                now_us=self._core.clock.now_us(),
                answered_by=answered_by,
                question_id=question_id,
            )
        )

    async def erase(
        self, project_id: str, *, user_id: str | None = None, session_id: str | None = None
    ) -> tuple[int, int]:
        """Delete the executions of a user or session. Returns how many are gone and how many are open. Raises
        BadValue."""
        for name, value in (("user_id", user_id), ("session_id", session_id)):
            if value is not None:
                check_text(value, where=name, max_bytes=KEY_BYTES_MAX)
        gone = 0
        while True:
            deleted, still_open = await self._core.store.write(
                queries.erase(project_id=project_id, user_id=user_id, session_id=session_id, limit=LIST_MAX)
            )
            gone += deleted
            if deleted < LIST_MAX:
                return gone, still_open

    async def list(
        self, project_id: str, filters: ListFilters, cursor: str | None = None, limit: int = 50
    ) -> ExecutionPage:
        """Newest first."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX}, got {limit}.")
        before = checked_cursor(cursor)
        for name in ("parent_execution_id", "root_execution_id"):
            id = getattr(filters, name)
            if id is not None and not id.islower():
                filters = replace(filters, **{name: id.lower()})
        page, following = await self._core.store.scan(
            queries.list_executions(project_id=project_id, filters=filters, before=before, limit=limit)
        )
        return ExecutionPage(page, following)
