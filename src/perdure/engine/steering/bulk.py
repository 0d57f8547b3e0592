"""The service of bulk jobs, and the loop that runs the jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct, ValidationError
from msgspec.structs import asdict, replace

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.steering import bulk
from perdure.store.verbs.steering.bulk import BulkPage, MatchingPage, RunningJob
from perdure.wire.base.errors import Conflict, NothingMatches, PerdureError, Unavailable, UnknownOutcome
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.runs.executions import Execution, ListFilters
from perdure.wire.steering.bulk import (
    SAMPLE,
    BulkAction,
    BulkJob,
    BulkPreview,
    ContinueBulkJob,
    JobState,
    PreviewBulkJob,
    Selection,
    StartBulkJob,
    StopBulkJob,
    filters_in_words,
    place_after,
    stored,
    stored_selection,
)
from perdure.wire.steering.forks import RetryExecution

logger = logging.getLogger("perdure.engine")

COUNT_SECONDS: Final = 5.0
FIND_SECONDS: Final = 0.5
PAGE: Final = 2_000
LATER_PAGE: Final = 50
JOBS_MAX: Final = 10_000
"""Jobs of all projects that a server examines per round."""
PAGE_SIZE: Final = 5
AMOUNT_MAX: Final = 25
"""A page keeps SQLite's loop for some milliseconds."""
PAGE_SIZES: Final = {BulkAction.RETRY: 10, BulkAction.FORK: 10, BulkAction.RESUME: 1, BulkAction.ACT: 1}
"""Forks copy journals. Answers and acts lock topics, and a transaction locks all topics before its first execution."""
FEWER_SECONDS: Final = 0.2
GROW_BELOW_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 5.0
_UNSURE: Final = "?"
"""A place that no job has."""


class _Work(Struct):
    place: str
    """The job's place when the ids were found."""
    selection: Selection
    ids: list[str]
    following: str | None
    """The place where the next look starts; None: nothing is left behind `ids`."""
    amount: int = PAGE_SIZE
    refusal: str | None = None
    looking: asyncio.Task[MatchingPage] | None = None
    """A look that takes longer than a round."""


class BulkJobs(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers
        self._work: dict[str, _Work] = {}
        self._stuck: set[str] = set()
        self._last: dict[str, str] = {}
        """Maps a project to the job that had the last turn."""
        self._gave_up = ""
        """The project whose page last had no answer. The next round begins behind this project, so other projects go
        on."""

    @serves(PreviewBulkJob)
    async def preview(self, scope: Scope, op: PreviewBulkJob) -> BulkPreview:
        return await self._count(scope.project_id, op, sample=SAMPLE)

    @serves(StartBulkJob)
    async def start(self, scope: Scope, op: StartBulkJob) -> BulkJob:
        started_by = await self._callers.name(scope.principal)
        job: BulkJob | PerdureError
        try:
            job = await self._new_job(scope.project_id, op, started_by)
        except (Conflict, NothingMatches) as error:
            job = error
        made = await self.write(
            bulk.start_job(project_id=scope.project_id, job=job, now_us=self.now_us(), idempotency=scope.idempotency)
        )
        self._notify()
        return made

    async def _new_job(self, project_id: str, op: StartBulkJob, started_by: str) -> BulkJob:
        counted = await self._count(project_id, op, newest=op.newest)
        if op.expect is not None and op.expect != counted.count:
            least = "At least " if counted.at_least else ""
            raise Conflict(
                f"{least}{counted.count:,} match now, not {op.expect:,}. Look again, or leave `expect` out.",
                {"count": counted.count},
            )
        now_us = self.now_us()
        newest = op.newest or counted.newest
        starts_at_us = now_us + op.hold_seconds * 1_000_000 if op.hold_seconds else None
        return BulkJob(
            id=self.new_id(),
            action=op.action,
            state=JobState.RUNNING,
            filters=Raw(stored(op.filters)),
            options=Raw(stored(op.options)),
            note=op.note,
            started_by=started_by,
            newest=newest,
            total=counted.count,
            at_least=counted.at_least,
            done=0,
            refused=0,
            later=0,
            created_at_us=now_us,
            starts_at_us=starts_at_us,
            moved_at_us=now_us,
        )

    @serves(StopBulkJob)
    async def stop(self, scope: Scope, op: StopBulkJob) -> BulkJob:
        return await self._set_running(scope, op.job_id, False)

    @serves(ContinueBulkJob)
    async def go_on(self, scope: Scope, op: ContinueBulkJob) -> BulkJob:
        job = await self._set_running(scope, op.job_id, True)
        self._notify()
        return job

    async def _set_running(self, scope: Scope, job_id: str, runs: bool) -> BulkJob:
        return await self.write(
            bulk.set_running(project_id=scope.project_id, job_id=job_id, runs=runs, now_us=self.now_us())
        )

    def _notify(self) -> None:
        self._core.notifier.notify(("loop", "bulk"))

    async def _count(
        self, project_id: str, selection: Selection, *, newest: str | None = None, sample: int = 0
    ) -> BulkPreview:
        """Count up to `newest`. Executions that change meanwhile may be counted or not. Raises NothingMatches."""
        loop = asyncio.get_running_loop()
        until = loop.time() + COUNT_SECONDS
        amount, first, later = 0, "", 0
        retry = selection.operation(_UNSURE) if sample else None
        asks = isinstance(retry, RetryExecution) and not retry.says_what_is_kept
        shown: list[Execution] = []
        place: str | None = FIRST_CURSOR if newest is None else place_after(newest)
        while place is not None and loop.time() <= until:
            found = await self.scan(
                bulk.find_matching(
                    project_id=project_id, selection=selection, before=place, limit=PAGE, sample=sample - len(shown)
                )
            )
            first = first or next(iter(found.ids), "")
            amount += len(found.ids)
            shown += found.sample
            place = found.place
            for at in range(0, len(found.ids) if asks else 0, LATER_PAGE):
                if loop.time() > until:
                    break
                ids = found.ids[at : at + LATER_PAGE]
                later += await self.scan(bulk.count_later(project_id=project_id, ids=ids))
        if not amount:
            raise await self._nothing(project_id, selection)
        return BulkPreview(amount, place is not None, first, shown, later)

    async def _nothing(self, project_id: str, selection: Selection) -> NothingMatches:
        """Say how many executions match without each filter."""
        given = {name: value for name, value in asdict(selection.filters).items() if value is not None}
        kind = f"{selection.kind} execution".lstrip()
        message = f"No {kind} matches {filters_in_words(selection.filters)}."
        if selection.action is BulkAction.RETRY:
            retried = await self._amount(
                project_id, replace(selection, filters=replace(selection.filters, retried=True))
            )
            message += f" {retried} were retried before." if retried else ""
        for name, value in given.items() if len(given) > 1 else ():
            without = replace(selection, filters=replace(selection.filters, **{name: None}))
            amount = await self._amount(project_id, without)
            message += f" Without {filters_in_words(ListFilters(**{name: value}))}: {amount}." if amount else ""
        return NothingMatches(message)

    async def _amount(self, project_id: str, selection: Selection) -> str:
        """Name the number of matches; empty: none."""
        found = await self.scan(
            bulk.find_matching(project_id=project_id, selection=selection, before=FIRST_CURSOR, limit=PAGE)
        )
        more = "" if found.place is None else " or more"
        return f"{len(found.ids):,}{more}" if found.ids else ""

    async def work(self) -> float:
        """Work at a page of each project that has a running job, then pause as long: jobs use at most half of the
        writer."""
        now_us = self.now_us()
        jobs, held_until_us = await self.read(bulk.due_jobs(now_us=now_us, limit=JOBS_MAX))
        running = {job.id for job in jobs}
        self._work = {id: work for id, work in self._work.items() if id in running}
        self._stuck &= running
        by_project: dict[str, list[RunningJob]] = {}
        for job in jobs:
            by_project.setdefault(job.project_id, []).append(job)
        self._last = {one: id for one, id in self._last.items() if one in by_project}
        loop = asyncio.get_running_loop()
        began = loop.time()
        moved = False
        for project_id in sorted(by_project, key=lambda one: (one <= self._gave_up, one)):
            last = self._last.get(project_id, "")
            for job in sorted(by_project[project_id], key=lambda job: (job.id <= last, job.id)):
                self._last[project_id] = job.id
                if await self._had_turn(job):
                    moved = True
                    break
        if moved:
            return loop.time() - began
        held = [] if held_until_us is None else [(held_until_us - now_us) / 1e6]
        return min([self._core.spread(1.0 if jobs else IDLE_SECONDS), *held])

    async def _had_turn(self, job: RunningJob) -> bool:
        try:
            return await self._take_page(job)
        except (Unavailable, UnknownOutcome):
            raise
        except PerdureError as error:  # such as a field that no workflow declares any more
            if job.id not in self._stuck:
                self._stuck.add(job.id)
                logger.error("Bulk job %s cannot find its executions: %s", job.id, error.message)
            return False

    async def _take_page(self, job: RunningJob) -> bool:
        """Work at a page. False: another server works at the job, or rows are locked, so nothing was done."""
        work = await self._known(job)
        if work is None:
            return False
        page = await self._next_page(job, work)
        if page is None:
            return True  # the look goes on
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            taken = await self.write(
                bulk.work_job(
                    project_id=job.project_id,
                    job_id=job.id,
                    page=page,
                    now_us=self.now_us(),
                    grace_us=self._core.grace_us,
                )
            )
        except (Unavailable, UnknownOutcome):  # the job's place says what happened
            # The page may have been too long for its deadline.
            self._gave_up, work.amount, work.place = job.project_id, 1, _UNSURE
            raise
        except Exception as error:
            self._failed(job, work, page, error)
            return False
        if taken is None:
            del self._work[job.id]
            return False
        seconds = loop.time() - began
        if seconds < GROW_BELOW_SECONDS:
            work.amount = min(work.amount * 2, PAGE_SIZES.get(work.selection.action, AMOUNT_MAX))
        elif seconds > FEWER_SECONDS:
            work.amount = max(work.amount // 2, 1)
        if page.again:
            # The next round goes on behind these, and after the last ones begins again.
            work.following = work.ids[-1] if work.ids else None
        work.place, work.refusal = page.following, None
        del work.ids[: len(page.ids)]
        return taken > 0 or not page.again

    async def _known(self, job: RunningJob) -> _Work | None:
        """Return None if this release does not know the action or filters."""
        work = self._work.get(job.id)
        if work is not None and work.place == job.place:
            return work
        found = await self.read(bulk.selection_of(project_id=job.project_id, job_id=job.id))
        if not found:
            return None
        try:
            selection = stored_selection(*found[0])
        except (ValueError, ValidationError) as error:
            if job.id not in self._stuck:
                self._stuck.add(job.id)
                logger.error("Bulk job %s was started by a newer release, which has to finish it: %s", job.id, error)
            return None
        amount = min(PAGE_SIZE, PAGE_SIZES.get(selection.action, AMOUNT_MAX)) if work is None else work.amount
        work = self._work[job.id] = _Work(job.place, selection, [], job.place or None, amount)
        return work

    async def _next_page(self, job: RunningJob, work: _Work) -> BulkPage | None:
        """Return the next page. None: nothing was found yet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FIND_SECONDS
        if work.place == bulk.WALKED:
            after = work.following or ""
            work.ids = await self.scan(bulk.later_items(job_id=job.id, after=after, limit=work.amount))
            return self._page(work, list(work.ids), bulk.WALKED)
        while not work.ids and work.following is not None:
            if work.looking is None:
                look = bulk.find_matching(
                    project_id=job.project_id, selection=work.selection, before=work.following, limit=PAGE
                )
                work.looking = asyncio.create_task(self.scan(look))
                work.looking.add_done_callback(
                    lambda task: task.cancelled() or task.exception()
                )  # both mark it as seen
            # Its turn may come late, if the project's callers search much.
            done, _ = await asyncio.wait([work.looking], timeout=max(until - loop.time(), 0))
            if not done:
                return None
            looked, work.looking = work.looking, None
            work.ids, work.following, _ = looked.result()
        ids = work.ids[: work.amount]
        following = ids[-1] if len(ids) < len(work.ids) else work.following or bulk.WALKED
        return self._page(work, ids, following)

    def _page(self, work: _Work, ids: Sequence[str], following: str) -> BulkPage:
        return BulkPage(
            selection=work.selection,
            place=work.place,
            following=following,
            ids={id: self.new_id() for id in ids},
            refusal=work.refusal,
        )

    def _failed(self, job: RunningJob, work: _Work, page: BulkPage, error: Exception) -> None:
        """Find the execution that made the page fail: use pages of one execution, then refuse the failing execution."""
        if job.id not in self._stuck:
            self._stuck.add(job.id)
            logger.error("Bulk job %s: a page failed. It goes on with single executions.", job.id, exc_info=error)
        if work.amount == 1 or len(page.ids) == 1:
            work.refusal = f"The action failed ({type(error).__name__}: {error}). The server's log says more."
        work.amount = 1
