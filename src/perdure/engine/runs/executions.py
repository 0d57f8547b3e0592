from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.base.start_checks import check_item
from perdure.engine.outside.push import Push
from perdure.engine.runs.claims import Claims
from perdure.store.base.interface import Verb
from perdure.store.verbs import retention
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.store.verbs.insight import summaries
from perdure.store.verbs.runs import find, queries, starts, transitions, waits
from perdure.store.verbs.runs.starts import New
from perdure.store.verbs.steering import pending
from perdure.wire.base.access import Role
from perdure.wire.base.brief_executions import StartedExecution
from perdure.wire.base.errors import BadValue, NotFound, PerdureError, Unavailable, from_code
from perdure.wire.base.fields import FIRST_CURSOR, checked_id
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import NULL, Problem
from perdure.wire.insight.summaries import ListSummaries, SummaryPage, SummarySort, read_ended
from perdure.wire.runs.executions import (
    LIST_MAX,
    Act,
    CancelExecution,
    Cancellation,
    DeleteExecution,
    Erased,
    EraseExecutions,
    Execution,
    ExecutionPage,
    Finished,
    GetExecution,
    GetLogs,
    GetSteps,
    JournalPage,
    ListExecutions,
    LogLine,
    LogPage,
    ResumeExecution,
    ResumeReply,
    Row,
    WaitForExecutions,
    WaitReply,
)
from perdure.wire.runs.requests import Claimed, StartAnswer, Started, StartItem, StartReply
from perdure.wire.runs.starts import Batch, StartExecutions, SubmitWorkflow, SubmitWorkflows

T = TypeVar("T")

LOOK_SECONDS: Final = 1.0
SEARCH_SECONDS: Final = 1.0
"""Seconds until a list without a match answers an empty page with a cursor."""
CLOSED = "The engine was closed while the result was awaited; the execution goes on when the store is opened again."


class Executions(Service):
    def __init__(self, core: Core, claims: Claims, push: Push, callers: Callers) -> None:
        super().__init__(core)
        self._claims = claims
        self._push = push
        self._callers = callers
        self._awaited: set[asyncio.Future[Finished]] = set()

    def close(self) -> None:
        for future in self._awaited:
            if not future.done():
                future.set_exception(Unavailable(CLOSED))

    @serves(SubmitWorkflow)
    async def submit(self, scope: Scope, op: SubmitWorkflow) -> StartedExecution:
        item, parent = op.to_item(), op.parent_execution_id
        if parent is not None and op.step_key is not None:
            wait = bool(op.wait_for_subworkflow)
            [child] = await self._push.start_children(scope, parent, op.step_key, [item], batch=False, wait=wait)
            return _to_started(child)
        [answer] = await self.start(scope.project_id, [item], idempotency=scope.idempotency)
        if isinstance(answer, Problem):
            raise from_code(answer.error_type, answer.error, answer.details)
        return _to_started(answer)

    @serves(SubmitWorkflows)
    async def submit_all(self, scope: Scope, op: SubmitWorkflows) -> Batch:
        items, parent = op.to_items(self.new_id()), op.parent_execution_id
        if parent is not None and op.step_key is not None:
            wait = bool(op.wait_for_subworkflow)
            started = await self._push.start_children(scope, parent, op.step_key, items, batch=True, wait=wait)
        else:
            started = await self.batch(scope.project_id, items, idempotency=scope.idempotency)
        return Batch([_to_started(one) for one in started])

    @serves(StartExecutions)
    async def start_many(self, scope: Scope, op: StartExecutions) -> StartReply:
        items: Sequence[StartItem] = op.items
        if any(item.start_at is not None or item.parent_execution_id is not None for item in op.items):
            items = [item.to_item() for item in op.items]
        answers = await self.start(scope.project_id, items, idempotency=scope.idempotency, input_check=op.input_check)
        return StartReply([StartAnswer.of(answer) for answer in answers])

    async def start(
        self,
        project_id: str,
        items: Sequence[StartItem],
        *,
        idempotency: Idempotency | None = None,
        encoded: bool = False,
        input_check: str | None = None,
    ) -> list[Started | Problem]:
        """Start independent executions, with an answer for each. `encoded`: as for `check_item`. `input_check`: as for
        `StartExecutions`."""
        answers: list[Started | Problem | None] = []
        news: list[New] = []
        for item in items:
            try:
                check_item(item, encoded=encoded)
                if item.webhook_url is not None:
                    await self._core.outbound.check_url(item.webhook_url, "webhook_url")
                if item.batch_id is not None:
                    raise BadValue("`batch_id` is made by the batch route and by `map_children`; leave it out.")
                answers.append(None)
                news.append(New(self.new_id(), item))
            except PerdureError as error:
                answers.append(Problem(error.message, error.code, error.details))
        core = self._core
        poll = self._claims.take_waiting(project_id, news[0].item.deployment_id) if news else None
        handed: list[Claimed] = []
        started: set[str] = set()
        for new in news:
            core.end_listeners.expect(project_id, new.id)  # its end may be heard before this task hears of its start
        try:
            given, handed = await core.store.write(
                starts.start(
                    project_id=project_id,
                    news=news,
                    now_us=core.clock.now_us(),
                    idempotency=idempotency,
                    input_check=input_check,
                    waiting_claim=None if poll is None else poll.waiting_claim,
                )
            )
            started.update(one.execution_id for one in given if isinstance(one, Started))
        finally:
            if poll is not None:
                self._claims.settle(poll, handed)
            for new in news:
                if new.id not in started:
                    core.end_listeners.stop_expecting(project_id, new.id)
        if len(given) == len(items):
            return given
        rest = iter(given)
        return [next(rest) if answer is None else answer for answer in answers]

    async def batch(
        self, project_id: str, items: Sequence[StartItem], *, idempotency: Idempotency | None = None
    ) -> list[Started]:
        """Start all executions or none, under one batch id. Items without a session share a new session."""
        for item in items:
            check_item(item)
            if item.webhook_url is not None:
                await self._core.outbound.check_url(item.webhook_url, "webhook_url")
        answers = await self._core.store.write(
            starts.start_batch(
                project_id=project_id,
                news=[New(self.new_id(), item) for item in items],
                batch_id=self.new_id(),
                now_us=self._core.clock.now_us(),
                idempotency=idempotency,
            )
        )
        return [answer for answer in answers if isinstance(answer, Started)]

    @serves(GetExecution)
    async def get(self, scope: Scope, op: GetExecution) -> Execution:
        if op.wait:
            async with scope.poll():
                await self._wait(scope.project_id, [op.execution_id], op.wait)
        return await self.read(queries.get(project_id=scope.project_id, execution_id=op.execution_id))

    @serves(ListExecutions)
    async def page(self, scope: Scope, op: ListExecutions) -> ExecutionPage:
        return ExecutionPage(*await self._search(scope.project_id, op, find.list_executions))

    @serves(ListSummaries)
    async def summaries(self, scope: Scope, op: ListSummaries) -> SummaryPage:
        look = summaries.list_ended if op.sort is SummarySort.ENDED else summaries.list_summaries
        return SummaryPage(*await self._search(scope.project_id, op, look))

    async def _search(
        self, project_id: str, op: ListExecutions | ListSummaries, look: Callable[..., Verb[tuple[list[T], str | None]]]
    ) -> tuple[list[T], str | None, int | None, int | None]:
        before, loop = (op.cursor or FIRST_CURSOR).lower(), asyncio.get_running_loop()
        until = loop.time() + SEARCH_SECONDS
        while True:
            found, following = await self.scan(look(project_id=project_id, filters=op, before=before, limit=op.limit))
            if found or following is None or loop.time() >= until:
                break
            before = following
        searched_to_us = searchable_from_us = None
        if not found and following is not None:
            if isinstance(op, ListSummaries) and op.sort is SummarySort.ENDED:
                searched_to_us = read_ended(following).at_us
            else:
                searched_to_us = await self.read(find.created_at(project_id=project_id, id=following))
        if op.field is not None:
            name, _, _ = op.field.partition("=")
            place = find.searchable_from(
                project_id=project_id, field=name, workflow_id=op.workflow_id, now_us=self.now_us()
            )
            searchable_from_us = await self.read(place)
        return found, following, searched_to_us, searchable_from_us

    @serves(WaitForExecutions)
    async def wait(self, scope: Scope, op: WaitForExecutions) -> WaitReply:
        """Wait for ends. The reply holds as many final executions as fit."""
        async with scope.poll():
            return await self._wait(scope.project_id, op.ids, op.wait_seconds)
        return WaitReply([])  # the server stops

    async def _wait(self, project_id: str, ids: Sequence[str], seconds: float) -> WaitReply:
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
            unsure = [id for id in ids if seconds <= 0 or not listeners.is_open(project_id, id)]
            reply = await self._ended(project_id, unsure)
            if reply.finished or reply.missing or seconds <= 0 or self._core.closing:
                return reply
            try:
                async with asyncio.timeout(seconds):
                    await some.wait()
            except TimeoutError:
                # Another server may have ended and deleted one whose hint was lost.
                return await self._ended(project_id, ids)
            return WaitReply(list(found))
        finally:
            for id in ids:
                listeners.forget(project_id, id, tell)

    async def _ended(self, project_id: str, ids: Sequence[str]) -> WaitReply:
        if not ids:
            return WaitReply([])
        done, missing = await self._core.store.read(queries.finished(project_id=project_id, ids=ids))
        return WaitReply(done, missing)

    async def result(self, project_id: str, execution_id: str) -> Finished:
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
                reply = await self._ended(project_id, (execution_id,))
                if reply.missing:
                    raise NotFound(f"Execution {execution_id!r} does not exist.")
                if reply.finished:
                    return reply.finished[0]
            return await future
        finally:
            self._awaited.discard(future)
            listeners.forget(project_id, execution_id, tell)

    async def how_ended(self, project_id: str, execution_id: str) -> Finished | None:
        return await self._core.store.read(
            queries.how_ended(project_id=project_id, execution_id=checked_id(execution_id))
        )

    async def journal(
        self, project_id: str, execution_id: str, after: int = 0, limit: int = 500, *, bytes_max: int = REPLY_BYTES_MAX
    ) -> tuple[list[Row], bool]:
        """Read rows after a seq, up to the row that reaches `bytes_max`, and whether more may follow."""
        id = checked_id(execution_id)
        return await self._core.store.read(
            queries.journal(project_id=project_id, execution_id=id, after=after, limit=limit, bytes_max=bytes_max)
        )

    @serves(GetSteps)
    async def steps(self, scope: Scope, op: GetSteps) -> JournalPage:
        id, loop = op.execution_id, asyncio.get_running_loop()
        until, over = loop.time() + (op.wait or 0), not op.wait
        while True:
            ticket = self.watch_cursor(id)
            rows, more = await self.journal(scope.project_id, id, op.after, op.limit)
            logs = None
            if op.after_log is not None:
                logs = await self.logs(scope.project_id, id, op.after_log, op.limit)
                more = more or len(logs) == op.limit
            if rows or logs or over:
                return JournalPage(rows, more, logs, await self._acts(id, rows))
            over = True  # and stays so if the server stops
            async with scope.poll():
                await self.watch(id, ticket, min(until - loop.time(), self._core.own_look(LOOK_SECONDS)))
                over = self._core.closing or loop.time() >= until

    async def _acts(self, id: str, rows: Sequence[Row]) -> list[Act] | None:
        if not rows:
            return None
        return await self.read(pending.acts_between(execution_id=id, first=rows[0].seq, last=rows[-1].seq)) or None

    async def logs(self, project_id: str, execution_id: str, after: int = 0, limit: int = 500) -> list[LogLine]:
        return await self.read(
            queries.logs(project_id=project_id, execution_id=checked_id(execution_id), after=after, limit=limit)
        )

    @serves(GetLogs)
    async def log_page(self, scope: Scope, op: GetLogs) -> LogPage:
        lines = await self.logs(scope.project_id, op.execution_id, op.after, op.limit)
        return LogPage(lines, len(lines) == op.limit)

    def watch_cursor(self, execution_id: str) -> int:
        """Take the cursor before reading journal or log: `watch` then misses nothing."""
        return self._core.notifier.cursor(("written", checked_id(execution_id)))

    async def watch(self, execution_id: str, cursor: int, seconds: float = 1.0) -> bool:
        return await self._core.notifier.wait(("written", checked_id(execution_id)), cursor, seconds)

    @serves(CancelExecution)
    async def cancel(self, scope: Scope, op: CancelExecution) -> Cancellation:
        """Cancel an execution and all descendants. Raises NotCancellable, or Forbidden for a worker's key, unless code
        that runs now started the execution."""
        if not scope.has_role(Role.WRITE) and not await self.read(
            transitions.has_running_parent(project_id=scope.project_id, execution_id=op.execution_id)
        ):
            scope.check_role(Role.WRITE)
        now_us = self.now_us()
        await self.write(
            transitions.cancel(
                project_id=scope.project_id,
                execution_id=op.execution_id,
                cancelled_by="user",
                now_us=now_us,
                grace_us=self._core.grace_us,
                acted_by=await self._callers.name(scope.principal),
                note=op.note,
            )
        )
        execution = await self.get(scope, GetExecution(op.execution_id))
        return Cancellation(op.execution_id, execution.status, execution.cancelled_at_us or now_us)

    @serves(DeleteExecution)
    async def delete(self, scope: Scope, op: DeleteExecution) -> None:
        """Delete an execution and all descendants. Raises Conflict while one is open."""
        await self.write(retention.delete(project_id=scope.project_id, execution_id=op.execution_id))

    @serves(ResumeExecution)
    async def resume(self, scope: Scope, op: ResumeExecution) -> ResumeReply:
        """Answer a step, even before the step asks. Raises Conflict if another answer counts."""
        return await self.write(
            waits.resume(
                project_id=scope.project_id,
                execution_id=op.execution_id,
                step_key=op.step_key,
                data=NULL if op.data is None else op.data,
                now_us=self.now_us(),
                answered_by=await self._callers.name(scope.principal),
                question_id=op.question,
            )
        )

    @serves(EraseExecutions)
    async def erase(self, scope: Scope, op: EraseExecutions) -> Erased:
        erased = 0
        while True:
            deleted, still_open = await self.write(
                retention.erase(
                    project_id=scope.project_id, user_id=op.user_id, session_id=op.session_id, limit=LIST_MAX
                )
            )
            erased += deleted
            if deleted < LIST_MAX:
                return Erased(erased, still_open)


def _to_started(started: Started) -> StartedExecution:
    return StartedExecution(started.execution_id, started.created_at_us)
