"""An execution's journal and log, merged by time."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from perdure.wire.base.status import FINAL
from perdure.wire.runs.executions import Execution, GetSteps, LogLine, Row

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client

PAGE = 500


async def follow(
    client: "Client", execution_id: str, *, to_the_end: bool = True, look_seconds: float = 10.0
) -> AsyncIterator[Row | LogLine | Execution]:
    """Yields the execution after each look, and the final one last.

    `look_seconds` pass between looks without news.
    """
    after = after_log = 0
    while True:
        # Read the execution first: a final one has all its rows.
        execution = (await client.get(execution_id)).raw
        rows = await client.journal(execution_id, after=after, limit=PAGE)
        lines = await client.logs(execution_id, after=after_log, limit=PAGE)
        items: list[tuple[int, int, Row | LogLine]] = [(row.at_us, 0, row) for row in rows]
        items += [(line.at_us, 1, line) for _, line in lines]
        for _, _, item in sorted(items, key=lambda item: item[:2]):
            yield item
        after = rows[-1].seq if rows else after
        after_log = lines[-1][0] if lines else after_log
        ended = any(row.kind.value in FINAL for row in rows)
        is_last = execution.phase in FINAL or not to_the_end
        if len(rows) == PAGE or len(lines) == PAGE or (ended and execution.phase not in FINAL):
            continue
        if is_last and rows:  # large values may end a page early
            continue
        yield execution
        if is_last:
            return
        op = GetSteps(execution_id, after, limit=1, after_log=after_log, wait=look_seconds)
        await client._transport.call(op)
