"""Numbers over time, and sums over filtered executions."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from perdure.sdk.clients.sync_methods import Blocking, blocking
from perdure.sdk.transports.transport import HasTransport
from perdure.wire.insight.matches import (
    CountExecutions,
    CountReply,
    ErrorGroups,
    FacetField,
    Facets,
    GetErrors,
    GetFacets,
    GetHistogram,
    Histogram,
    HistogramTime,
)
from perdure.wire.insight.spend import GetSpend, Spend
from perdure.wire.insight.stats import (
    DeploymentStats,
    GetDeploymentStats,
    GetOverview,
    GetQueueStats,
    GetWorkflowStats,
    ListWorkflowStats,
    Overview,
    QueueStats,
    Range,
    WorkflowDetails,
    WorkflowStatsPage,
)
from perdure.wire.runs.executions import ListFilters


class ProjectStats:
    """Ranges end now: `1h`, `6h`, `24h`, `7d` or `30d`. A search ends after half a second or 10,000 matches, newest
    first; `exact` says whether every match is in."""

    def __init__(self, client: HasTransport) -> None:
        self._client = client

    async def overview(self, range: str = "24h") -> Overview:
        """Numbers of the project: ended executions, open executions, and problems that need attention.

        Raises `ValueError` for an unknown range.

            >>> overview = await client.stats.overview("1h")                                # doctest: +SKIP
            >>> [one.sentence for one in overview.attention]                                # doctest: +SKIP
            ['7 executions of order failed: TimeoutError: connect to tax-#.']
        """
        return await self._client._transport.call(GetOverview(Range(range)))

    async def spend(self, range: str = "24h", *, agent: str | None = None) -> Spend:
        """Costs of models, for agents' executions begun in the range: `total`, `models`, `agents`, `buckets`.

        Without `exact`, the real sums may be higher. Raises `ValueError` for an unknown range.

            >>> spend = await client.stats.spend("7d", agent="support")                     # doctest: +SKIP
            >>> spend.total.usd, spend.executions                                           # doctest: +SKIP
            (1.8214, 412)
        """
        return await self._client._transport.call(GetSpend(Range(range), agent))

    async def workflows(self, range: str = "24h", *, cursor: str | None = None, limit: int = 100) -> WorkflowStatsPage:
        """Numbers of each workflow, by id. Raises `ValueError` for an unknown range."""
        return await self._client._transport.call(ListWorkflowStats(Range(range), cursor, limit))

    async def workflow(self, workflow_id: str, range: str = "24h") -> WorkflowDetails:
        """Numbers of one workflow, with deployments, errors and steps. Raises `ValueError` for an unknown range."""
        return await self._client._transport.call(GetWorkflowStats(workflow_id, Range(range)))

    async def deployment(self, deployment_id: str) -> DeploymentStats:
        """Numbers of a deployment since it came into use, and of the one before. Raises `NotFound`.

        >>> stats = await client.stats.deployment("2026-11-29")                         # doctest: +SKIP
        >>> [(one.count, one.message) for one in stats.errors if one.is_new]            # doctest: +SKIP
        [(67, 'tax-… did not answer')]
        """
        return await self._client._transport.call(GetDeploymentStats(deployment_id))

    async def queue(self, name: str, range: str = "1h") -> QueueStats:
        """Ended executions of a queue over time. Raises `ValueError` for an unknown range."""
        return await self._client._transport.call(GetQueueStats(name, Range(range)))

    async def count(self, filters: ListFilters | None = None) -> CountReply:
        """How many executions fit.

        >>> await client.stats.count(ListFilters(status=["failed"]))                    # doctest: +SKIP
        CountReply(count=412, exact=True)
        """
        return await self._client._transport.call(CountExecutions(**_given(filters)))

    async def histogram(
        self, filters: ListFilters | None = None, *, over: str = "created", step_seconds: int | None = None
    ) -> Histogram:
        """Executions by phase, over the time of being `created` or `ended`.

        Raises `ValueError` for another `over`.
        """
        op = GetHistogram(**_given(filters), over=HistogramTime(over), step=step_seconds)
        return await self._client._transport.call(op)

    async def errors(self, filters: ListFilters | None = None, *, limit: int = 20) -> ErrorGroups:
        """Failed executions by workflow and error, without numbers and ids."""
        return await self._client._transport.call(GetErrors(**_given(filters), limit=limit))

    async def facets(self, of: str, filters: ListFilters | None = None, *, limit: int = 20) -> Facets:
        """The values of a field, such as `phase`, `workflow_id` or `tag`, with their counts.

        Raises `ValueError` for another field.
        """
        return await self._client._transport.call(GetFacets(**_given(filters), of=FacetField(of), limit=limit))


def _given(filters: ListFilters | None) -> dict[str, Any]:
    return {} if filters is None else asdict(filters)


class SyncProjectStats(Blocking[ProjectStats]):
    spend = blocking(ProjectStats.spend)
    overview = blocking(ProjectStats.overview)
    workflows = blocking(ProjectStats.workflows)
    workflow = blocking(ProjectStats.workflow)
    queue = blocking(ProjectStats.queue)
    count = blocking(ProjectStats.count)
    histogram = blocking(ProjectStats.histogram)
    errors = blocking(ProjectStats.errors)
    facets = blocking(ProjectStats.facets)
