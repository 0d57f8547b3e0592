from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Final

from msgspec import Raw

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import Notify, Streamed, query, query_many, verb
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.runs.requests import ReportItem
from perdure.wire.runs.streams import StreamItem, StreamPage, short_id

ITEMS_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
"""Bytes kept per execution, approximately; the oldest items go first."""
TRIM_ITEMS: Final = 500
TRIM_BYTES: Final = 1 << 20
FAMILY_MAX: Final = 1_000
"""The newest descendants of a root to follow."""


async def append(project_id: str, item: ReportItem, now_us: int) -> None:
    last = await query("last_stream_item", execution_id=item.execution_id)
    ((before, size),) = last or [(0, 0)]
    rows: list[tuple[object, ...]] = []
    upto = size
    for n, one in enumerate(item.stream[-ITEMS_MAX:], before + 1):
        data = bytes(one.data)
        upto += len(data)
        rows.append((item.execution_id, n, now_us, item.attempt, one.tries, one.key, one.kind, data, upto))
    await query_many("insert_stream_item", rows)
    newest = before + len(rows)
    if newest // TRIM_ITEMS != before // TRIM_ITEMS or upto // TRIM_BYTES != size // TRIM_BYTES:
        await query("trim_stream", execution_id=item.execution_id, n=newest - ITEMS_MAX, upto=upto - BYTES_MAX)
    await Notify(Streamed(project_id, item.stream_of or item.execution_id))


@verb(reads=True)
async def read_stream(*, project_id: str, execution_id: str, seen: Mapping[str, int], limit: int) -> StreamPage:
    """Read new items of an execution's and its descendants' streams, after `seen` (by `short_id`): by number within an
    execution, else by time."""
    # Read first: if the execution is final now, it has all its items.
    state = await query("stream_state", project_id=project_id, id=execution_id)
    if not state:
        raise unknown_execution(execution_id)
    ((phase, error, root_id, newest),) = state
    root_id = root_id or execution_id
    paths: dict[str, tuple[str, ...]] = {}
    news: dict[str, int] = {}
    if count := _changed(execution_id, newest, seen):
        paths[execution_id], news[execution_id] = (), count
    family = await query("stream_family", project_id=project_id, root_id=root_id, limit=FAMILY_MAX)
    above = {id: (parent_id, key) for id, parent_id, key, _ in family}
    for id, _, _, newest in family:
        if (count := _changed(id, newest, seen)) and (path := _path(id, execution_id, above)):
            paths[id], news[id] = path, count
    counts: Mapping[str, int] = news
    if len(news) > 1 and sum(news.values()) > limit:
        counts = await _next_of_each(list(news), seen, limit)
    found: list[list[StreamItem]] = []
    for id, path in paths.items():
        if count := min(counts[id], limit):
            rows = await query("read_stream_items", execution_id=id, after=seen.get(short_id(id), 0), limit=count)
            found.append(
                [
                    StreamItem(
                        execution_id=id,
                        n=n,
                        at_us=at_us,
                        path=path,
                        attempt=attempt,
                        tries=tries,
                        key=key,
                        kind=kind,
                        data=Raw(data),
                    )
                    for n, at_us, attempt, tries, key, kind, data in rows
                ]
            )
    items = list(merge(*found, key=lambda item: item.at_us))
    ended = Phase(phase) if Phase(phase) in FINAL and not items else None
    return StreamPage(items, root_id, ended, error if ended is not None else None)


async def _next_of_each(ids: Sequence[str], seen: Mapping[str, int], limit: int) -> Mapping[str, int]:
    """Count the next items of each execution, without reading data."""
    times = []
    for id in ids:
        rows = await query("stream_item_times", execution_id=id, after=seen.get(short_id(id), 0), limit=limit)
        times.append([(at_us, id) for (at_us,) in rows])
    return Counter(id for _, id in islice(merge(*times, key=itemgetter(0)), limit))


def _changed(id: str, newest: int | None, seen: Mapping[str, int]) -> int:
    """Return how many unseen items an execution has; the oldest may be deleted."""
    return max(0, (newest or 0) - seen.get(short_id(id), 0))


def _path(id: str, top_id: str, above: Mapping[str, tuple[str, str | None]]) -> tuple[str, ...]:
    """Return the keys from `top_id` down to an execution; empty if the execution is elsewhere."""
    keys: list[str] = []
    while id != top_id:
        if id not in above:
            return ()
        id, key = above[id]
        keys.append(key or "")
    return tuple(reversed(keys))
