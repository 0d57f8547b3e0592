"""Limits of a start's numbers, and which options exclude each other, for clients, workflows and the server."""

from perdure.wire.budgets import check_budget
from perdure.wire.codec import KEY_BYTES_MAX, check_name, check_text
from perdure.wire.errors import BadValue
from perdure.wire.requests import StartItem

INT32_MAX = 2**31 - 1
DELAY_SECONDS_MAX = 10 * 366 * 86_400.0
AT_US_MAX = 253_402_300_799_000_000  # the end of the year 9999


def check_options(item: StartItem) -> None:
    """Refuse impossible options, except names and payload. Raises BadValue with the field."""
    if not -1_000 <= item.priority <= 1_000:
        raise BadValue(f"`priority` must be -1000 to 1000, got {item.priority}.")
    if item.delay_seconds is not None and not 0 <= item.delay_seconds <= DELAY_SECONDS_MAX:
        raise BadValue(f"`delay_seconds` must be 0 to {DELAY_SECONDS_MAX:.0f}, got {item.delay_seconds!r}.")
    if item.start_at_us is not None and not 0 <= item.start_at_us <= AT_US_MAX:
        raise BadValue("`start_at` must lie between 1970 and 9999.")
    if item.on_conflict is not None and (item.delay_seconds is not None or item.start_at_us is not None):
        raise BadValue("`on_conflict`: a turn begins at once or after those before it; leave out the start time.")
    if item.run_timeout_seconds is not None and not 1 <= item.run_timeout_seconds <= INT32_MAX:
        raise BadValue(f"`run_timeout_seconds` must be 1 to {INT32_MAX}, got {item.run_timeout_seconds}.")
    if item.queue_concurrency_limit is not None and not 1 <= item.queue_concurrency_limit <= INT32_MAX:
        raise BadValue(f"`queue_concurrency_limit` must be 1 to {INT32_MAX}, got {item.queue_concurrency_limit}.")
    if item.budget is not None:
        check_budget(item.budget)
    if item.tags is not None:
        if len(item.tags) > 10:
            raise BadValue(f"`tags` may hold 10 entries, got {len(item.tags)}.")
        for name, text in item.tags.items():
            check_name(name, where="tags")
            check_text(text, where=f"tags.{name}", max_bytes=KEY_BYTES_MAX)
