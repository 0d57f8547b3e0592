"""Facts that a worker of `perdure dev` tells the parent process.

A fact is the rest of an output line after `MARK`, because a pipe keeps its content after a SIGKILL.
"""

import json
import os
from collections.abc import Callable
from typing import Any, Final

MARK: Final = b"\x1eperdure "
FACT_BYTES_MAX: Final = 4_000
"""Less than a pipe takes as a whole (POSIX: 4,096), so no print lands within a fact."""


class Teller:
    """Watches the worker from inside its process."""

    def claimed(self, execution_id: str) -> None:
        _write({"claimed": execution_id})

    def body_begins(self, execution_id: str, attempt: int, key: str, started_at_us: int) -> None:
        _write({"ran": [execution_id, attempt, key, started_at_us]})


def _write(fact: dict[str, Any]) -> None:
    line = MARK + json.dumps(fact).encode() + b"\n"
    if len(line) <= FACT_BYTES_MAX:
        os.write(1, line)


class Reader:
    """Separates facts from the program's output, which arrives in pieces."""

    def __init__(self, fact: Callable[[dict[str, Any]], None]) -> None:
        self._fact = fact
        self._begun = b""

    def rest_of(self, chunk: bytes) -> bytes:
        """The output without facts. An unfinished fact waits for the next chunk."""
        data, self._begun = self._begun + chunk, b""
        rest: list[bytes] = []
        while (at := data.find(MARK[:1])) >= 0:
            rest.append(data[:at])
            data = data[at:]
            end = data.find(b"\n")
            may_be_one = data.startswith(MARK) or MARK.startswith(data)
            if end < 0 and may_be_one and len(data) <= FACT_BYTES_MAX:
                self._begun = data
                return b"".join(rest)
            fact = _parse_facts(data[len(MARK) : end]) if end >= 0 and data.startswith(MARK) else None
            if fact is None:  # the program's own output
                rest.append(data[:1])
                data = data[1:]
            else:
                self._fact(fact)
                data = data[end + 1 :]
        return b"".join([*rest, data])


def _parse_facts(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
