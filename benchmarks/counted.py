"""`perdure` as it is typed, with every statement on SQLite counted: `python -m benchmarks.counted COUNTS serve …`.

The counts are written to the file COUNTS, by the text of the statement, twice a second.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import apsw

from perdure.cli.main import app as perdure


def main() -> None:
    file = Path(sys.argv.pop(1))
    counts: Counter[str] = Counter()

    def trace(event: dict[str, object]) -> None:
        counts[str(event["sql"])] += 1

    def hook(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, trace)

    def write() -> None:
        while True:
            time.sleep(0.5)
            found = {" ".join(sql.split()): amount for sql, amount in list(counts.items())}
            file.with_suffix(".new").write_text(json.dumps(found), encoding="utf-8")
            file.with_suffix(".new").replace(file)

    apsw.connection_hooks.append(hook)
    threading.Thread(target=write, daemon=True).start()
    perdure()


if __name__ == "__main__":
    main()
