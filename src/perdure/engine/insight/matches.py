import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.base.interface import Verb
from perdure.store.verbs.insight import matches
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.status import Phase
from perdure.wire.insight.attention import StuckExecution, clusters_of, pattern_of
from perdure.wire.insight.matches import (
    LEFT_OUT,
    MATCHES_MAX,
    CountExecutions,
    CountReply,
    ErrorGroups,
    FacetField,
    Facets,
    FacetValue,
    GetErrors,
    GetFacets,
    GetHistogram,
    Histogram,
    histogram,
)
from perdure.wire.runs.executions import ListFilters

T = TypeVar("T")

SEARCH_SECONDS: Final = 0.5


class Matches(Service):
    @serves(CountExecutions)
    async def count(self, scope: Scope, op: CountExecutions) -> CountReply:
        ids, exact = await self._search(scope, op, matches.found_ids)
        return CountReply(len(ids), exact)

    @serves(GetHistogram)
    async def histogram(self, scope: Scope, op: GetHistogram) -> Histogram:
        found, exact = await self._search(scope, op, matches.found)
        return histogram(found, op.over, op.step, exact=exact)

    @serves(GetErrors)
    async def errors(self, scope: Scope, op: GetErrors) -> ErrorGroups:
        found, exact = await self._failures(scope, op)
        clusters = clusters_of(found)[: op.limit]
        return ErrorGroups(await self.scan(matches.error_groups(clusters=clusters)), exact)

    @serves(GetFacets)
    async def facets(self, scope: Scope, op: GetFacets) -> Facets:
        filters = replace(op, **dict.fromkeys(LEFT_OUT.get(op.of, (op.of.value,))))
        values: list[str | None]
        if op.of is FacetField.TAG:
            tags, exact = await self._search(scope, filters, matches.found_tags)
            values = [*tags]
        elif op.of is FacetField.ERROR_CLASS:
            failures, exact = await self._failures(scope, filters)
            values = [pattern_of(one.error or "").error_class for one in failures]
        else:
            found, exact = await self._search(scope, filters, matches.found)
            values = [getattr(one, op.of.value) for one in found]
        counts = Counter(value for value in values if value is not None)
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: op.limit]
        return Facets(of=op.of, values=[FacetValue(value, count) for value, count in most], exact=exact)

    async def _failures(self, scope: Scope, filters: ListFilters) -> tuple[list[StuckExecution], bool]:
        phases = filters.wanted_phases()
        if phases is not None and Phase.FAILED not in phases:
            return [], True
        return await self._search(
            scope, replace(filters, status=None, phases=[Phase.FAILED.value]), matches.found_failures
        )

    async def _search(
        self, scope: Scope, filters: ListFilters, look: Callable[..., Verb[tuple[list[T], str | None]]]
    ) -> tuple[list[T], bool]:
        """Return the newest matches, and whether the list is complete."""
        loop = asyncio.get_running_loop()
        before, until = FIRST_CURSOR, loop.time() + SEARCH_SECONDS
        found: list[T] = []
        while True:
            page, following = await self.scan(look(project_id=scope.project_id, filters=filters, before=before))
            found += page
            if following is None:
                return found, True
            if len(found) >= MATCHES_MAX or loop.time() >= until:
                return found, False
            before = following
