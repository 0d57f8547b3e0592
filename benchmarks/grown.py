"""Makes a store with many finished executions, for W8: `python -m benchmarks.grown STORE 1000000`.

One execution runs for real; its rows are then copied under ids and times of their own, a millisecond apart.
"""

import argparse
import json
import time

import apsw
from benchmarks.figures import file_bytes, run_loop
from benchmarks.workflows import PAYLOAD, app, noop1

from perdure.embedded import embedded

PART = 50_000


async def run_one(store: str) -> str:
    async with embedded(store, app) as p:
        handle = await p.start(noop1, PAYLOAD)
        await handle.result()
        return handle.id


def copy(store: str, id: str, amount: int) -> None:
    """Insert `amount` copies of a finished execution, older than it."""
    base = apsw.Connection(store)
    base.execute("PRAGMA synchronous=OFF; PRAGMA cache_size=-262144")
    created_us = int(str(base.execute("SELECT created_at_us FROM executions WHERE id = ?", (id,)).fetchall()[0][0]))
    first_us = created_us - amount * 1_000
    base.execute("CREATE TEMP TABLE copies (id TEXT NOT NULL, earlier_us INTEGER NOT NULL)")
    for begin in range(0, amount, PART):
        rows = []
        for n in range(begin, min(begin + PART, amount)):
            at_us = first_us + n * 1_000
            ms = f"{at_us // 1_000:012x}"
            rows.append((f"{ms[:8]}-{ms[8:]}-7{n % 4_096:03x}-8000-{n:012x}", created_us - at_us))
        base.execute("BEGIN; DELETE FROM temp.copies")
        base.executemany("INSERT INTO temp.copies VALUES (?, ?)", rows)
        for table, key in (("executions", "id"), ("journal", "execution_id")):
            names = [str(row[1]) for row in base.execute(f"PRAGMA table_info({table})").fetchall()]
            values = [
                "c.id" if name == key else f"t.{name} - c.earlier_us" if name.endswith("_us") else f"t.{name}"
                for name in names
            ]
            base.execute(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
                f"FROM temp.copies c, {table} t WHERE t.{key} = ? ORDER BY c.id",
                (id,),
            )
        base.execute("COMMIT")
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("amount", type=int)
    given = parser.parse_args()
    begin = time.perf_counter()
    copy(given.store, run_loop(run_one(given.store)), given.amount)
    size = file_bytes(given.store)
    took = time.perf_counter() - begin
    print(json.dumps({"executions": given.amount, "bytes_per_execution": size / given.amount, "took_s": took}))


if __name__ == "__main__":
    main()
