from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from msgspec import Raw, structs

from perdure.sdk.clients.bulk import Bulk
from perdure.sdk.clients.executions import ExecutionInfo, ExecutionInfoPage, ExecutionSearch
from perdure.sdk.clients.filters import FindOptions, find_filters
from perdure.sdk.clients.forks import ForkOptions, RetryOptions, fork_request, retry_request
from perdure.sdk.clients.project_stats import ProjectStats
from perdure.sdk.clients.queues import Queues
from perdure.sdk.clients.schedules import Schedules
from perdure.sdk.clients.shared_budgets import SharedBudgets
from perdure.sdk.clients.starts import GatheredStarts, start_item
from perdure.sdk.payloads.errors import execution_failure
from perdure.sdk.payloads.values import decode, encode
from perdure.sdk.workflows.start_options import StartOptions
from perdure.sdk.workflows.streams import StreamItem, follow
from perdure.sdk.workflows.workflow import Workflow
from perdure.wire.agents.approvals import AnswerState, ListApprovalLinks, ListApprovals, ListedState, RevokeApprovalLink
from perdure.wire.agents.budgets import GetBudget, OnExceed, RaiseBudget, usd_micros
from perdure.wire.agents.transcripts import AppendToTranscript, GetTranscript, Transcript, shown
from perdure.wire.agents.usage import ExecutionUsage, GetUsage
from perdure.wire.base.errors import BadValue, NotFound, from_code
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Problem
from perdure.wire.base.status import Phase
from perdure.wire.base.times import microseconds
from perdure.wire.insight.timelines import GetTimeline, Timeline
from perdure.wire.insight.why import ExplainExecution, Why
from perdure.wire.runs.events import Event, EventData, GetEvents, ListedTopic, ListTopics, PublishEvent
from perdure.wire.runs.executions import (
    CancelExecution,
    DeleteExecution,
    EraseExecutions,
    Finished,
    GetExecution,
    GetLogs,
    GetSteps,
    ListExecutions,
    ListFilters,
    LogLine,
    ResumeExecution,
    Row,
)
from perdure.wire.runs.queues import Pause, PauseKind, PauseKindName
from perdure.wire.runs.workers import ListedWorker, ListWorkers
from perdure.wire.steering.acts import Action, ActOnExecution, GetPending
from perdure.wire.steering.pauses import EndedPause, EndPause, ListPauses, PutPause

if TYPE_CHECKING:
    from decimal import Decimal
    from types import TracebackType

    from perdure.sdk.clients.sync import SyncClient
    from perdure.sdk.transports.transport import Transport
    from perdure.sdk.workers.worker import Worker
    from perdure.wire.agents.approvals import OpenApproval, QuestionLink
    from perdure.wire.agents.budgets import BudgetState
    from perdure.wire.steering.acts import Acted, PendingCall

I = TypeVar("I")  # noqa: E741  # input
R = TypeVar("R")


class Handle(Generic[R]):
    """One execution: its result, stream, answers and end."""

    __slots__ = ("_client", "_workflow", "existing", "id")

    def __init__(
        self, client: Client, id: str, workflow: Workflow[Any, R] | None = None, *, existing: bool = False
    ) -> None:
        self._client = client
        self._workflow = workflow
        self.id = id
        self.existing = existing
        """True if `key=` named an earlier execution."""

    async def result(self, *, timeout: float | None = None) -> R:
        """Wait for the end and return the workflow's result.

        Raises `ExecutionFailed`, `ExecutionCancelled`, or `TimeoutError` after `timeout` seconds. A time-out does not
        stop the execution.
        """
        if timeout is None:
            return self._value(await self._client._transport.result(self.id))
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                finished = await self._client._transport.result(self.id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"Execution {self.id} has not ended within {timeout:g} seconds; it goes on.") from None
        return self._value(finished)

    def _value(self, finished: Finished) -> R:
        if finished.phase == Phase.COMPLETED:
            type_ = Any if self._workflow is None else self._workflow.result_type
            value: R = decode(bytes(finished.result) if finished.result is not None else b"null", type_, where="result")
            return value
        raise execution_failure(self.id, finished)

    async def get(self) -> ExecutionInfo[R]:
        """The execution's present state. Input and result have the workflow's types."""
        return self._info(await self._client.get(self.id))

    def _info(self, found: ExecutionInfo[Any]) -> ExecutionInfo[R]:
        workflow = self._workflow
        if workflow is None:
            return found
        return ExecutionInfo(found.raw, input_type=workflow.input_type, result_type=workflow.result_type)

    def stream(self, *, after: str | None = None) -> AsyncGenerator[StreamItem, None]:
        """Follow the items of this execution and its descendants, from the oldest kept item to the end.

        `after` is the `cursor` of the item to begin behind. Reconnects after lost connections. If the execution fails
        or is cancelled, the last item is followed by the error that `result` raises.

            async for item in handle.stream():
                print(item.data, end="")
        """
        return self._client.stream(self.id, after=after)

    async def cancel(self, *, note: str | None = None) -> ExecutionInfo[R]:
        """See `Client.cancel`."""
        return self._info(await self._client.cancel(self.id, note=note))

    async def resume(self, key: str, data: object = None, *, question: str | None = None) -> AnswerState:
        """See `Client.resume`."""
        return await self._client.resume(self.id, key, data, question=question)

    async def fork(self, **options: Unpack[ForkOptions]) -> Handle[R]:
        """See `Client.fork`."""
        return Handle(self._client, (await self._client.fork(self.id, **options)).id, self._workflow)

    async def retry(self, **options: Unpack[RetryOptions]) -> Handle[R]:
        """See `Client.retry`."""
        return Handle(self._client, (await self._client.retry(self.id, **options)).id, self._workflow)

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"


class Client:
    """A client of one project.

    `schedules`, `queues`, `budgets`, `stats` and `bulk` have further methods. Without a server, calls raise
    `Unavailable` or `UnknownOutcome` after 30 seconds, waits for a result after 5 minutes; `connect(timeout=5)` says
    otherwise.

    >>> client = Client.connect("http://127.0.0.1:8080", api_key="sk_…")       # doctest: +SKIP
    >>> handle = await client.start(order, {"id": 7})                           # doctest: +SKIP
    >>> await handle.result()                                                   # doctest: +SKIP
    """

    worker: Worker | None = None
    """The worker of an embedded client."""

    def __init__(self, transport: Transport) -> None:
        self._begin(transport)
        self.schedules = Schedules(self)
        self.queues = Queues(self)
        self.budgets = SharedBudgets(self)
        self.stats = ProjectStats(self)
        self.bulk = Bulk(self)

    def _begin(self, transport: Transport) -> None:
        """Runs also in a forked process: starts under way stay with the parent."""
        self._transport = transport
        self._starts = GatheredStarts(transport)

    @classmethod
    def connect(
        cls, url: str | Sequence[str] | None = None, api_key: str | None = None, *, timeout: float | None = None
    ) -> Client:
        """A client of a server, or of several servers of one store (a list, or text with commas).

        The URL defaults to `PERDURE_URL`, then to the `perdure dev` of this folder or one above, then to
        http://127.0.0.1:8080. The key defaults to `PERDURE_API_KEY`, then to the server's key in
        `~/.config/perdure/credentials.toml`. A server that is only the last default gets no key from the file.

        Without an answer, calls raise `Unavailable` or `UnknownOutcome` after `timeout` seconds; waits for a result
        count from the last answer. The first call connects.

        Close the client, or use it as a block:

            async with Client.connect() as client:
                print(await (await client.start(order, {"id": 7})).result())
        """
        from perdure.sdk.clients.credentials import find
        from perdure.sdk.transports.http import HttpTransport

        return Client(HttpTransport(*find(url, api_key)[:2], timeout=timeout))

    @staticmethod
    def sync(
        url: str | Sequence[str] | None = None, api_key: str | None = None, *, timeout: float | None = None
    ) -> SyncClient:
        """A client for code without an event loop."""
        from perdure.sdk.clients.sync import SyncClient

        return SyncClient(url, api_key, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    async def start(
        self, workflow: Workflow[None, R], input: None = ..., **options: Unpack[StartOptions]
    ) -> Handle[R]: ...

    @overload
    async def start(self, workflow: Workflow[I, R], input: I, **options: Unpack[StartOptions]) -> Handle[R]: ...

    @overload
    async def start(self, workflow: str, input: object = ..., **options: Unpack[StartOptions]) -> Handle[object]: ...

    async def start(
        self, workflow: Workflow[Any, Any] | str, input: object = None, **options: Unpack[StartOptions]
    ) -> Handle[Any]:
        """Start an execution. On return the execution is on disk and will run.

        `key` names the execution within its workflow, as long as the execution is kept: the same input returns the same
        execution, another input raises `Conflict`. `delay` (seconds) or `at` defers the start. `budget` limits what the
        execution and its descendants spend on model calls. docs/client.md lists all options. Raises `WorkflowNotFound`,
        `DeploymentNotFound`, and `BadValue` with the path of a value outside JSON.
        """
        item = start_item(workflow, input, **options)
        if isinstance(workflow, Workflow):
            workflow.starting(None if self.worker is None else self.worker.outside)
        known = None if isinstance(workflow, str) else workflow
        answer = await self._starts.start(item, None if known is None else known.input_check)
        if isinstance(answer, Problem):
            raise from_code(answer.error_type, answer.error, answer.details)
        return Handle(self, answer.execution_id, known, existing=answer.existing)

    @overload
    def handle(self, execution_id: str) -> Handle[object]: ...
    @overload
    def handle(self, execution_id: str, workflow: Workflow[Any, R]) -> Handle[R]: ...
    def handle(self, execution_id: str, workflow: Workflow[Any, Any] | None = None) -> Handle[Any]:
        """A handle for an execution whose id is known. With `workflow`, the result has the workflow's type."""
        return Handle(self, execution_id, workflow)

    async def find(self, workflow: Workflow[Any, R], key: str) -> Handle[R]:
        """The execution named by a key within its workflow. Raises `NotFound`."""
        page = await self._transport.call(ListExecutions(workflow_id=workflow.name, key=key, retried=False))
        if not page.executions:
            raise NotFound(f"No execution of workflow {workflow.name!r} has the key {key!r}.")
        return Handle(self, page.executions[0].id, workflow, existing=True)

    async def get(self, execution_id: str) -> ExecutionInfo[Any]:
        """The execution with state, result and error. Raises `NotFound`."""
        return ExecutionInfo(await self._transport.call(GetExecution(execution_id)))

    async def why(self, execution_id: str, *, slow: bool = False) -> Why:
        """The reason for an execution's state: one sentence, then the details. Raises `NotFound`.

        With `slow`, `path` is the critical path: the steps, waits and queues that took the time.

        >>> print((await client.why(handle.id)).sentence)                       # doctest: +SKIP
        All 2 workers of deployment 'v1' are full.
        """
        return await self._transport.call(ExplainExecution(execution_id, slow))

    async def timeline(self, execution_id: str, *, after: int = 0, limit: int = 5_000) -> Timeline:
        """The journal as spans: steps with their tries, waits, children, and the workers that held the execution. One
        page; `last_seq` is the `after` of the next. Raises `NotFound`.

        >>> [span.key for span in (await client.timeline(handle.id)).spans]     # doctest: +SKIP
        ['reserve', 'charge_card', 'ship']
        """
        return await self._transport.call(GetTimeline(execution_id, after, limit))

    async def usage(self, execution_id: str) -> ExecutionUsage:
        """The model calls of an execution and its descendants, with sums by model and child. Raises `NotFound`."""
        return await self._transport.call(GetUsage(execution_id))

    def list(
        self,
        filters: ListFilters | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        **options: Unpack[FindOptions],
    ) -> ExecutionSearch:
        """The executions that match all filters, newest first: all with `async for`, a page of `limit` with `await`.

            async for one in client.list(workflow="order", status="failed", tags={"customer": "ann"}):
                print(one.id, one.error)

            page = await client.list(roots_only=True, limit=100)

        `FindOptions` has all filters. `filters` is the form for `bulk` and `stats`. `cursor` is the `next_cursor` of a
        page. Raises `BadValue` and `BadRequest`.
        """
        given = structs.asdict(find_filters(options) if filters is None else filters)
        if filters is not None and options:
            raise TypeError(f"list() takes either a ListFilters or {', '.join(options)}.")

        async def page(cursor: str | None = cursor) -> ExecutionInfoPage:
            op = ListExecutions(**given, cursor=cursor, limit=limit)
            return ExecutionInfoPage(await self._transport.call(op), page)

        return ExecutionSearch(page)

    async def journal(self, execution_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Row]:
        """The journal's rows after the seq `after`. Large values shorten a page; only the page after the end is
        empty."""
        return (await self._transport.call(GetSteps(execution_id, after, limit))).steps

    async def logs(self, execution_id: str, *, after: int = 0, limit: int = 500) -> Sequence[tuple[int, LogLine]]:
        """The log lines after number `after`, with their numbers."""
        page = await self._transport.call(GetLogs(execution_id, after, limit))
        return [(line.n, line) for line in page.logs]

    async def watch(self, execution_id: str) -> AsyncIterator[Row]:
        """Follow the journal to the end."""
        after = 0
        while True:
            page = await self._transport.call(GetSteps(execution_id, after, wait=10.0))
            for row in page.steps:
                yield row
                after = row.seq
                if row.kind.value in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED):
                    return

    def stream(self, execution_id: str, *, after: str | None = None) -> AsyncGenerator[StreamItem, None]:
        """See `Handle.stream`."""
        return follow(self._transport, execution_id, after)

    async def approvals(
        self, *, state: Literal["open", "answered", "expired"] = "open", cursor: str | None = None, limit: int = 100
    ) -> Listed[OpenApproval]:
        """A page of the project's questions. Open questions come oldest first, answered and expired questions newest
        first. `limit` is at most 1,000.

        for one in (await client.approvals()).items:
            print(one.workflow_id, json.loads(bytes(one.data)))
            await client.resume(one.execution_id, one.step_key, {"approved": True}, question=one.question)
        """
        return await self._transport.call(ListApprovals(ListedState(state), cursor, limit))

    async def approval_links(self, *, cursor: str | None = None, limit: int = 100) -> Listed[QuestionLink]:
        """A page of the links that still open a question, newest first, with their makers. `limit` is at most 1,000."""
        return await self._transport.call(ListApprovalLinks(cursor, limit))

    async def revoke_approval_link(self, link_id: str) -> None:
        """End a link at once. Raises `NotFound` for an ended link.

        for link in (await client.approval_links()).items:
            await client.revoke_approval_link(link.id)
        """
        await self._transport.call(RevokeApprovalLink(link_id))

    async def cancel(self, execution_id: str, *, note: str | None = None) -> ExecutionInfo[Any]:
        """Cancel an execution and its descendants. The server keeps the caller's name and `note`. Raises
        `NotCancellable` for a final execution."""
        await self._transport.call(CancelExecution(execution_id, note))
        return await self.get(execution_id)

    async def fork(self, execution_id: str, **options: Unpack[ForkOptions]) -> Handle[object]:
        """Start an execution that keeps another execution's outcomes up to `from_step`, the key of a step.

        `payload` replaces the input, and `steps` recorded outcomes by key. `deployment_id` is the code to run, by
        default the current deployment. Repeated steps keep their idempotency keys, unless `fresh_keys` is true. `key`
        names the fork within its workflow. The server keeps the caller's name and `note`. Raises `NotFound` for an
        unknown step, `Conflict` for a step not reached yet, `BadValue` for an impossible edit.

            fork = await client.fork(handle.id, from_step="pay", steps={"quote": 7}, note="the quote was wrong")
            print(await fork.result())
        """
        made = await self._transport.call(fork_request(execution_id, options))
        return Handle(self, made.execution_id)

    async def retry(self, execution_id: str, **options: Unpack[RetryOptions]) -> Handle[object]:
        """Fork a final execution from the failed step, or from its start if the code itself failed.

        The new execution takes over the key. `from_step` names another step. `from_end` keeps all outcomes, and the
        code runs on after them. See `fork` for the other options.

        If the code called later steps after the failure, such as refunds, those steps may have undone earlier work.
        `keep_later` keeps the outcomes of later steps; `redo_later` drops these outcomes, so the steps run again if the
        code calls them again. Without either option, and without an `on_retry` of each step, `LaterOutcomes` names the
        steps. Raises `Conflict` for an open execution, and for an execution retried before.

            again = await client.retry(handle.id, deployment_id="v2")
        """
        made = await self._transport.call(retry_request(execution_id, options))
        return Handle(self, made.execution_id)

    async def delete(self, execution_id: str) -> None:
        """Delete a final execution and its descendants."""
        await self._transport.call(DeleteExecution(execution_id))

    async def resume(
        self, execution_id: str, key: str, data: object = None, *, question: str | None = None
    ) -> AnswerState:
        """Answer a suspended step.

        Returns `"answered"`, or `"early"` if no step asks under the key yet. Only a later step that shows nothing
        (`ctx.suspend(key)`) takes an early answer. `question` is the question's id (`GET /api/v1/approvals`). Raises
        `Conflict` if the step has another answer or asks another question.
        """
        # A refusal of the same bytes means that another answer stands.
        op = ResumeExecution(execution_id, key, Raw(encode(data, where="data")), question)
        return (await self._transport.call(op)).state

    async def pending(self, execution_id: str) -> Sequence[PendingCall]:
        """The calls of an execution without an outcome yet, with the possible actions for each.

        Running steps are listed after 5 seconds. Raises `NotFound`.
        """
        return (await self._transport.call(GetPending(execution_id))).items

    async def act(
        self,
        execution_id: str,
        action: Literal["try", "fire", "complete", "fail", "time_out"],
        *,
        key: str | None = None,
        value: object = None,
        error: str | None = None,
        deployment_id: str | None = None,
        note: str | None = None,
    ) -> Acted:
        """Decide about the pending call `key`; without a key, about the held execution.

        `complete` gives the call `value`, `fail` an error, `try` runs a held or paused step now, `fire` ends a timer,
        `time_out` raises `TimeoutError` in a wait. `deployment_id` moves a held execution. Caller and `note` are kept.
        Raises `NotFound` if nothing is pending there, and `Conflict` if the real outcome was first.

            await client.act(id, "complete", key="pay", value={"ok": True}, note="paid by hand")
        """
        op = ActOnExecution(
            execution_id,
            action=Action(action),
            key=key,
            value=Raw(encode(value, where="value")),
            error=error,
            deployment_id=deployment_id,
            note=note,
        )
        return await self._transport.call(op)

    async def publish(
        self, topic: str, data: object, *, event_type: str | None = None, dedup_key: str | None = None
    ) -> int:
        """Publish an event. Returns the event's number in the topic."""
        event = EventData(Raw(encode(data, where="data")), event_type, dedup_key)
        return (await self._transport.call(PublishEvent(topic, [event]))).sequence_ids[0]

    async def events(self, topic: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """The events of a topic after number `after`. A page may be short, like a page of `journal`."""
        return (await self._transport.call(GetEvents(topic, after, limit=limit))).events

    async def topics(self, prefix: str = "", *, cursor: str | None = None, limit: int = 100) -> Listed[ListedTopic]:
        """A page of the topics whose name begins with `prefix`, by name."""
        return await self._transport.call(ListTopics(prefix, cursor, limit))

    async def workers(self, *, cursor: str | None = None, limit: int = 100) -> Listed[ListedWorker]:
        """A page of the registered workers, by id, with how many executions each holds."""
        return await self._transport.call(ListWorkers(cursor, limit))

    async def pause(
        self,
        kind: PauseKind | PauseKindName,
        name: str,
        *,
        concurrency_key: str | None = None,
        until: datetime | timedelta | None = None,
        note: str | None = None,
    ) -> Pause:
        """Pause a `queue`, a `workflow`, a `deployment`, or with `concurrency_key` a `key` of the queue `name`.

        Once this call returns, no server hands out paused executions. Running executions end as usual, new executions
        wait. The pause lasts until `unpause`, or until `until`: a moment with its zone, or a timedelta from now. Needs
        the role `admin`. Raises `BadValue`, `NotFound` for an unknown workflow or deployment, and `Forbidden`.

        >>> await client.pause("queue", "emails", until=timedelta(hours=2), note="provider is down") # doctest: +SKIP
        """
        if isinstance(until, timedelta):
            until = datetime.now(UTC) + until
        ends_us = None if until is None else microseconds(until.astimezone())
        return await self._transport.call(PutPause(PauseKind(kind), name, concurrency_key, ends_us, note))

    async def unpause(
        self, kind: PauseKind | PauseKindName, name: str, *, concurrency_key: str | None = None
    ) -> EndedPause:
        """End a pause. Workers get the paused executions again, in the old order. Needs the role `admin`."""
        return await self._transport.call(EndPause(PauseKind(kind), name, concurrency_key))

    async def pauses(self) -> Sequence[Pause]:
        """The pauses of the project, by kind and name."""
        return (await self._transport.call(ListPauses())).items

    async def transcript(self, session_id: str, *, version: int | None = None) -> Transcript:
        """The messages that a session's model sees, in a version or the newest version. Version 0 is empty."""
        first = await self._transport.call(GetTranscript(session_id, version=version))
        entries, following = list(first.entries), first.next
        while following is not None:
            page = await self._transport.call(GetTranscript(session_id, version=first.version, after=following))
            entries += page.entries
            following = page.next
        return shown(first.version, entries)

    async def append_messages(self, session_id: str, messages: Sequence[object], *, version: int | None = None) -> int:
        """Append to a session's transcript. Returns the new version. Raises `Conflict` for an outdated `version`."""
        values = [Raw(encode(message, where=f"messages[{n}]")) for n, message in enumerate(messages)]
        op = AppendToTranscript(session_id, messages=values, version=version)
        return (await self._transport.call(op)).version

    async def budget(self, execution_id: str) -> BudgetState:
        """The budget of an execution or of the nearest ancestor with one, or a balance by its id. Raises `NotFound`."""
        return await self._transport.call(GetBudget(execution_id))

    async def raise_budget(
        self,
        execution_id: str,
        *,
        usd: float | Decimal = 0,
        tokens: int = 0,
        calls: int = 0,
        seconds: int = 0,
        on_exceed: Literal["ask", "finish", "fail"] | None = None,
    ) -> BudgetState:
        """Add to the limits of an execution's budget, or of a balance by its id. Executions waiting for the budget
        continue.

        Raises `NotFound`, and `BadRequest` for a limit missing from the budget.
        """
        op = RaiseBudget(
            execution_id,
            usd_micros=usd_micros(usd),
            tokens=tokens,
            calls=calls,
            seconds=seconds,
            on_exceed=None if on_exceed is None else OnExceed(on_exceed),
        )
        return await self._transport.call(op)

    async def erase(self, *, user_id: str | None = None, session_id: str | None = None) -> tuple[int, int]:
        """Delete the final executions of a user or a session. Returns how many are deleted and how many open."""
        if (user_id is None) == (session_id is None):
            raise BadValue("Give either `user_id` or `session_id`.")
        reply = await self._transport.call(EraseExecutions(user_id, session_id))
        return reply.erased, reply.open

    async def close(self) -> None:
        """Close the connections. Executions continue."""
        await self._starts.close()
        await self._transport.close()
