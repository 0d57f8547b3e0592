"""Limits of clients, servers, workers and journals.

Each limit is a setting from the environment, read once: `PERDURE_` and the name, `PERDURE_VALUE_BYTES_MAX=16777216`.
All processes of an installation need the same limits. Otherwise a value can be stuck between a process that takes it
and a process that refuses it.
"""

import os
from typing import Final

from perdure.wire.base.errors import BadRequest

VARIABLES: Final[dict[str, str]] = {}
"""The environment variable of each limit."""


def _limit(name: str, usual: int, *, least: int, most: int) -> int:
    VARIABLES[name] = f"PERDURE_{name}"
    text = os.environ.get(VARIABLES[name], "").strip()
    if not text:
        return usual
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise BadRequest(f"{VARIABLES[name]} must be a whole number from {least:,} to {most:,}, got {text!r}.")


VALUE_BYTES_MAX: Final = _limit("VALUE_BYTES_MAX", 8 << 20, least=1 << 16, most=1 << 28)
"""Most bytes of a JSON value: a payload, a result, an event."""
DEPTH_MAX: Final = _limit("DEPTH_MAX", 64, least=16, most=256)
"""How deep a value may nest."""
STEPS_MAX: Final = _limit("STEPS_MAX", 100_000, least=100, most=10_000_000)
"""Steps per execution."""
REPLY_BYTES_MAX: Final = _limit("REPLY_BYTES_MAX", 8 << 20, least=1 << 16, most=1 << 28)
"""Most bytes of a reply: a claim's, a report's or a list. A single item always passes."""
GATHERED_BYTES_MAX: Final = 1 << 20
"""Most bytes of starts or reports that share a request. A server handles a request in one go, and all other requests
wait."""
REPORT_ITEMS_MAX: Final = _limit("REPORT_ITEMS_MAX", 500, least=1, most=10_000)
"""Most executions in a worker's report."""
FORK_BYTES_MAX: Final = _limit("FORK_BYTES_MAX", 256 << 20, least=1 << 20, most=1 << 40)
"""Most bytes of values copied by a fork."""
IN_FLIGHT_MAX: Final = 200
"""Most steps named by a beat."""
REGISTERED_MAX: Final = _limit("REGISTERED_MAX", 1_000, least=1, most=100_000)
"""Most workflows, queues, schedules or event triggers in a registration."""
