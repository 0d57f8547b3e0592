"""Rollups of ends: how many executions ended, by slices of time.

Some seconds after an end, a background duty *folds* it into `ended_counts`, once: a transaction changes the counts and
the marks of counted ends together. Readers count younger ends from the index.

A transaction may commit seconds after its end's time, so the duty examines each minute twice. A deletion counts the
deleted ends before the duty does.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict, replace

from perdure.store.base.interface import Rows, query, query_many, record, records, value, verb

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
KEPT_US: Final = {MINUTE_US: 13 * HOUR_US, 15 * MINUTE_US: 8 * DAY_US, HOUR_US: 92 * DAY_US}
"""How long slices are kept, by length."""
ROWS_MAX: Final = 10_000
"""About how many ends of each project a fold counts at once."""
SETTLED_ROWS_MAX: Final = 100_000
GROUPS_MAX: Final = 2_000
"""Most groups of a project in a fold. The queues of a project with more are counted together as `OTHER_QUEUES`."""
OTHER_QUEUES: Final = "*"


class Folds(Struct, frozen=True):
    folded_to_us: int
    settled_to_us: int
    deletions: int


class Group(NamedTuple):
    """Similar ends of a minute."""

    project_id: str
    at_us: int
    workflow_id: str
    deployment_id: str
    queue_name: str
    phase: str
    took: int
    n: int


def minute(at_us: int) -> int:
    return at_us // MINUTE_US * MINUTE_US


@verb(reads=True)
async def folds() -> Folds | None:
    """None before the first fold of a store."""
    return await record(Folds, "read_folds")


@verb(sweep=True)
async def begin() -> None:
    await query("begin_folds")


@verb(reads=True)
async def piece_after(*, from_us: int, to_us: int) -> tuple[list[Group], int]:
    """Return the oldest ends of the range, or all if few, and where they end."""
    place = await value("place_after", from_us=from_us, to_us=to_us, depth=ROWS_MAX)
    to_us = to_us if place is None else max(place, from_us + 1)
    return await _groups(from_us, to_us), to_us


@verb(reads=True)
async def missed(*, from_us: int, to_us: int) -> tuple[list[Group], int]:
    """Return missed ends of whole minutes, and where these end. The range begins with a minute."""
    place = await value("place_after", from_us=from_us, to_us=to_us, depth=SETTLED_ROWS_MAX)
    to_us = to_us if place is None else max(minute(place), from_us + MINUTE_US)
    between = {"from_us": from_us, "to_us": to_us}
    counted = {(project, at): n for project, at, n in await query("counted_by_minute", **between)}
    ended = await query("ended_by_minute", **between)
    short = {(project, at) for project, at, n in ended if n > counted.get((project, at), 0)}
    groups: list[Group] = []
    for at_us in sorted({at for _, at in short}):
        there = {tuple(name): n for *name, n in await query("counted_groups", at_us=at_us)}
        for group in await _groups(at_us, at_us + MINUTE_US):
            *name, n = group
            extra = n - there.get(tuple(name), 0)
            if extra > 0 and (group.project_id, at_us) in short:
                groups.append(group._replace(n=extra))
    return groups, to_us


async def _groups(from_us: int, to_us: int) -> list[Group]:
    return [Group(*row) for row in await query("ended_groups", from_us=from_us, to_us=to_us)]


@verb(sweep=True)
async def fold(*, was: Folds, now: Folds, groups: Sequence[Group], now_us: int) -> bool:
    """Count groups and move the marks. False: another server or a deletion came first, and nothing changed."""
    if not await _move(was, now):
        return False
    await _add(groups, now_us)
    return True


@verb(sweep=True)
async def reopen(*, was: Folds, from_us: int) -> bool:
    """Count again from `from_us`, the start of an hour: the clock was put back."""
    marks = {name: min(value, from_us) for name, value in asdict(was).items() if name != "deletions"}
    if not await _move(was, replace(was, **marks)):
        return False
    for step_us in KEPT_US:
        await query("drop_ended_from", step_us=step_us, at_us=from_us)
    return True


@verb(sweep=True)
async def prune_counts(*, now_us: int) -> None:
    for step_us, kept_us in KEPT_US.items():
        await query("prune_ended_counts", step_us=step_us, at_us=now_us - kept_us)


async def count_deleted(project_id: str, rows: Rows) -> None:
    """Count deleted executions that are not counted yet. `rows` come from `delete_execution`."""
    marks = await record(Folds, "read_folds") if rows else None
    if marks is None or all(at_us < marks.folded_to_us for at_us, *_ in rows):
        return
    # A fold may have moved the marks meanwhile. From here on it cannot, and what it has read is too old.
    for marks in await records(Folds, "lock_folds"):
        groups = [Group._make((project_id, *group, 1)) for at_us, *group in rows if at_us >= marks.folded_to_us]
        await _add(groups, now_us=marks.folded_to_us)


async def _move(was: Folds, now: Folds) -> bool:
    return bool(await query("move_folds", now, **{f"was_{name}": value for name, value in asdict(was).items()}))


async def _add(groups: Sequence[Group], now_us: int) -> None:
    sizes = Counter(group.project_id for group in groups)
    rows: Counter[tuple[object, ...]] = Counter()
    for project_id, at_us, workflow_id, deployment_id, queue_name, phase, took, n in groups:
        queue = OTHER_QUEUES if queue_name and sizes[project_id] > GROUPS_MAX else queue_name
        for step_us, kept_us in KEPT_US.items():
            if at_us >= now_us - kept_us:
                rows[
                    project_id, step_us, at_us // step_us * step_us, workflow_id, deployment_id, queue, phase, took
                ] += n
    if rows:
        await query_many("add_ended", [(*row, n) for row, n in rows.items()])
