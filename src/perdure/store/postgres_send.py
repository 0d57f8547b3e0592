"""How a round's batch is sent: in as few statements as its text allows, with the rows of each run told apart."""

from perdure.store.interface import Rows
from perdure.store.lockstep import Batch
from perdure.store.postgres_link import Connection


async def send(connection: Connection, batch: Batch) -> list[Rows]:
    """Run one statement for every run of a batch; the rows of each."""
    statement, runs, values = batch
    rows = sum(map(len, values))
    if statement.bulk is not None and rows > 1 and (not statement.returns or rows == len(runs)):
        return await _send_bulk(connection, batch)
    if not statement.returns:
        flat = [one for several in values for one in several]
        if len(flat) == 1:
            await connection.fetch(statement.sql, *flat[0])
        else:
            await connection.executemany(statement.sql, flat)
        return [[] for _ in runs]
    if statement.routed is None or (len(runs) == 1 and len(values[0]) == 1):
        return [
            [tuple(record) for one in several for record in await connection.fetch(statement.sql, *one)]
            for several in values
        ]
    found: list[Rows] = [[] for _ in runs]
    routed = [(*one, n) for n, several in enumerate(values) for one in several]
    for record in await connection.fetchmany(statement.routed, routed):
        found[record[0]].append(tuple(record)[1:])
    return found


async def _send_bulk(connection: Connection, batch: Batch) -> list[Rows]:
    """Run a statement once for all rows: what it costs to begin one, it costs once."""
    statement, runs, values = batch
    assert statement.bulk is not None
    arrays = zip(*(one for several in values for one in several), strict=True)
    found: list[Rows] = [[] for _ in runs]
    for record in await connection.fetch(statement.bulk, *arrays):
        found[record[0] - 1].append(tuple(record)[1:])
    return found
