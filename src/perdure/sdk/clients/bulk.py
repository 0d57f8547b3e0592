"""Bulk jobs.

job = await client.bulk.start("cancel", ListFilters(workflow_id="order", status=["pending"]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

from msgspec import Raw

from perdure.sdk.clients.forks import ForkChoices, RetryChoices, with_edits
from perdure.sdk.clients.sync_methods import Blocking, blocking
from perdure.sdk.payloads.values import encode
from perdure.sdk.transports.transport import HasTransport
from perdure.wire.base.operation import Listed
from perdure.wire.steering.acts import Action
from perdure.wire.steering.bulk import (
    BulkAction,
    BulkItem,
    BulkJob,
    BulkOptions,
    BulkPreview,
    ContinueBulkJob,
    GetBulkJob,
    ItemState,
    ListBulkItems,
    ListBulkJobs,
    PreviewBulkJob,
    StartBulkJob,
    StopBulkJob,
)

if TYPE_CHECKING:
    from perdure.wire.runs.executions import ListFilters

Actions = Literal["cancel", "retry", "fork", "resume", "act", "delete"]


class BulkChoices(ForkChoices, RetryChoices, total=False):
    """The options of a fork, a retry, an answer (`resume`) or an act, by the names that single requests have.

    `deployment_id`: where forks and retries run, and where held executions continue."""

    key: str
    """Resume, act: the key of the waiting step or pending call."""
    data: object
    """Resume: the answer. Default: None."""
    act: Literal["try", "fire", "complete", "fail", "time_out"]
    value: object
    """Act: the value of `complete`."""
    error: str
    """Act: the message of `fail`."""


class Bulk:
    """`client.bulk`: one action on all executions that match the filters. Changes need the role `admin`."""

    def __init__(self, client: HasTransport) -> None:
        self._client = client

    async def preview(self, action: Actions, filters: ListFilters, **options: Unpack[BulkChoices]) -> BulkPreview:
        """Count the executions that a job would take, and return the newest 20. Changes nothing.

        Raises `NothingMatches`, and `BadValue` for filters or options unfit for the action.

            >>> found = await client.bulk.preview("cancel", ListFilters(workflow_id="order"))   # doctest: +SKIP
            >>> found.count                                                                     # doctest: +SKIP
            1204
        """
        op = PreviewBulkJob(BulkAction(action), filters, _options(options))
        return await self._client._transport.call(op)

    async def start(
        self,
        action: Actions,
        filters: ListFilters,
        *,
        newest: str | None = None,
        expect: int | None = None,
        note: str | None = None,
        hold_seconds: int = 0,
        **options: Unpack[BulkChoices],
    ) -> BulkJob:
        """Start a job in the background. A job takes each execution once, also if its server is killed.

        `newest` and `expect` are `newest` and `count` of a preview: later executions are left out, and another number
        raises `Conflict`. Raises also as `preview`.

        `hold_seconds` (at most 300) pass before the first execution changes. `stop` undoes the job until then, and
        `continue_job` starts it at once.

            >>> job = await client.bulk.start("cancel", ListFilters(workflow_id="order"))       # doctest: +SKIP
            >>> (await client.bulk.get(job.id)).left                                            # doctest: +SKIP
            0
        """
        op = StartBulkJob(
            BulkAction(action),
            filters,
            _options(options),
            newest=newest,
            expect=expect,
            note=note,
            hold_seconds=hold_seconds,
        )
        return await self._client._transport.call(op)

    async def get(self, job_id: str) -> BulkJob:
        """The state and progress of a job. Raises `NotFound`."""
        return await self._client._transport.call(GetBulkJob(job_id))

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Listed[BulkJob]:
        """A page of jobs, newest first."""
        return await self._client._transport.call(ListBulkJobs(cursor, limit))

    async def items(
        self,
        job_id: str,
        *,
        state: Literal["done", "refused", "later"] | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Listed[BulkItem]:
        """A page of the executions taken by a job, newest first. Raises `NotFound`."""
        kind = None if state is None else ItemState(state)
        return await self._client._transport.call(ListBulkItems(job_id, kind, cursor, limit))

    async def stop(self, job_id: str) -> BulkJob:
        """Stop a job, which then takes no further execution. Raises `Conflict` for a completed job, and `NotFound`."""
        return await self._client._transport.call(StopBulkJob(job_id))

    async def continue_job(self, job_id: str) -> BulkJob:
        """Continue a stopped job with the remaining executions, or start a held job at once. Raises like `stop`."""
        return await self._client._transport.call(ContinueBulkJob(job_id))


def _options(choices: BulkChoices) -> BulkOptions:
    given = with_edits(dict(choices))
    for name in ("data", "value"):
        if name in given:
            given[name] = Raw(encode(given[name], where=name))
    if "act" in given:
        given["act"] = Action(given["act"])
    return BulkOptions(**given)


class SyncBulk(Blocking[Bulk]):
    preview = blocking(Bulk.preview)
    start = blocking(Bulk.start)
    get = blocking(Bulk.get)
    list = blocking(Bulk.list)
    items = blocking(Bulk.items)
    stop = blocking(Bulk.stop)
    continue_job = blocking(Bulk.continue_job)
