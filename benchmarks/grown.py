"""Makes a store with many finished executions, for W8: `python -m benchmarks.grown STORE 1000000`.

One execution runs for real; its rows are then copied under ids and times of their own, a millisecond apart.
"""

import argparse
import json
import time
from typing import Final

import apsw
from benchmarks.figures import file_bytes, run_loop
from benchmarks.workflows import PAYLOAD, app, noop1

from perdure.embedded import embedded
from perdure.store.open import is_postgres

PART = 50_000


async def run_one(store: str) -> str:
    async with embedded(store, app) as p:
        handle = await p.start(noop1, PAYLOAD)
        await handle.result()
        return handle.id


def copy_id(at_us: int, n: int) -> str:
    """The id of the copy that is as old as that."""
    ms = f"{at_us // 1_000:012x}"
    return f"{ms[:8]}-{ms[8:]}-7{n % 4_096:03x}-8000-{n:012x}"


def copied(name: str, key: str, times: str) -> str:
    """What a copy has in a column: its own id, its own times, and the rest from the original."""
    return "c.id" if name == key else f"t.{name} - {times}" if name.endswith("_us") else f"t.{name}"


TABLES: Final = (("executions", "id"), ("journal", "execution_id"))


def copy(store: str, id: str, amount: int) -> None:
    """Insert `amount` copies of a finished execution into a file, older than it."""
    base = apsw.Connection(store)
    base.execute("PRAGMA synchronous=OFF; PRAGMA cache_size=-262144")
    created_us = int(str(base.execute("SELECT created_at_us FROM executions WHERE id = ?", (id,)).fetchall()[0][0]))
    first_us = created_us - amount * 1_000
    base.execute("CREATE TEMP TABLE copies (id TEXT NOT NULL, earlier_us INTEGER NOT NULL)")
    for begin in range(0, amount, PART):
        rows = []
        for n in range(begin, min(begin + PART, amount)):
            at_us = first_us + n * 1_000
            rows.append((copy_id(at_us, n), created_us - at_us))
        base.execute("BEGIN; DELETE FROM temp.copies")
        base.executemany("INSERT INTO temp.copies VALUES (?, ?)", rows)
        for table, key in TABLES:
            names = [str(row[1]) for row in base.execute(f"PRAGMA table_info({table})").fetchall()]
            values = [copied(name, key, "c.earlier_us") for name in names]
            base.execute(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
                f"FROM temp.copies c, {table} t WHERE t.{key} = ? ORDER BY c.id",
                (id,),
            )
        base.execute("COMMIT")
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.close()


async def copy_in_postgres(store: str, id: str, amount: int) -> float:
    """As `copy`, in a database; answers its bytes. Statistics are left as autovacuum would leave them."""
    import asyncpg

    base = await asyncpg.connect(store)
    try:
        created_us = await base.fetchval("SELECT created_at_us FROM executions WHERE id = $1", id)
        first_us = created_us - amount * 1_000
        await base.execute("CREATE TEMP TABLE copies (id TEXT NOT NULL, earlier_us BIGINT NOT NULL)")
        for begin in range(0, amount, PART):
            numbers = range(begin, min(begin + PART, amount))
            await base.execute("TRUNCATE copies")
            await base.copy_records_to_table(
                "copies", records=[(copy_id(first_us + n * 1_000, n), (amount - n) * 1_000) for n in numbers]
            )
            for table, key in TABLES:
                columns = await base.fetch(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = $1 "
                    "AND table_schema = current_schema() ORDER BY ordinal_position",
                    table,
                )
                names = [str(row[0]) for row in columns]
                values = [copied(name, key, "c.earlier_us") for name in names]
                await base.execute(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
                    f"FROM copies c, {table} t WHERE t.{key} = $1 ORDER BY c.id",
                    id,
                )
        await base.execute("VACUUM ANALYZE")
        return float(await base.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await base.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("amount", type=int)
    given = parser.parse_args()
    begin = time.perf_counter()
    id = run_loop(run_one(given.store))
    if is_postgres(given.store):
        size = run_loop(copy_in_postgres(given.store, id, given.amount))
    else:
        copy(given.store, id, given.amount)
        size = file_bytes(given.store)
    took = time.perf_counter() - begin
    print(json.dumps({"executions": given.amount, "bytes_per_execution": size / given.amount, "took_s": took}))


if __name__ == "__main__":
    main()
