"""Answers to suspended steps: before, while or after somebody waits for them, none is lost (I5)."""

from typing import Any
from uuid import UUID, uuid5

from msgspec import Raw

from perdure.store.interface import Rows, query, query_many, verb
from perdure.store.verbs.asking import note_answer
from perdure.store.verbs.events import publish_events
from perdure.store.verbs.rows import deliver
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.records import Kind, Problem
from perdure.wire.requests import EventItem
from perdure.wire.status import FINAL, Phase

EARLY_MAX = 1_000
"""How many answers one execution keeps for steps that have not asked yet: keys may be mistyped, or invented."""


@verb
async def resume(
    *, project_id: str, execution_id: str, step_key: str, data: Raw, now_us: int, answered_by: str | None = None
) -> None:
    """Answer a suspended step; an answer that comes early is kept until its wait is opened."""
    wait = await query("read_wait", execution_id=execution_id, key=step_key)
    if wait and wait[0][6] is not None:  # its answer will be an event: topics are locked before executions
        await query("lock_topic", project_id=project_id, topic=wait[0][1])
    problem = await answer_wait(project_id, execution_id, step_key, data, now_us)
    if problem is not None:
        raise (NotFound if problem.error_type == NotFound.code else Conflict)(problem.error)
    if answered_by is not None:
        await note_answer(project_id, execution_id, step_key, data, answered_by, now_us)


async def answer_wait(project_id: str, execution_id: str, step_key: str, data: Raw, now_us: int) -> Problem | None:
    """The answer as an outcome in the waiter's journal; the first one stands. Refusals are told, not raised.

    The same answer again, byte for byte, changes nothing and is told what the first one was: its reply may be lost,
    and the execution may have gone on, or ended, since then.
    """
    state = await query("lock_state", project_id=project_id, id=execution_id)
    if not state:
        return Problem(f"Execution {execution_id!r} does not exist.", NotFound.code)
    wait = await query("read_wait", execution_id=execution_id, key=step_key)
    if wait and await _stands(execution_id, step_key, wait[0], bytes(data)):
        return None
    if Phase(state[0][0]) in FINAL:
        return Problem(f"Execution {execution_id!r} is {state[0][0]} already and takes no answers.", Conflict.code)
    if wait and wait[0][0] != "open":
        return Problem(
            f"Step {step_key!r} of execution {execution_id!r} was answered before; the first answer stands."
            if wait[0][0] in ("met", "early")
            else f"Step {step_key!r} of execution {execution_id!r} no longer waits for an answer.",
            Conflict.code,
        )
    if wait and wait[0][5] is not None and wait[0][5] <= now_us:
        return Problem(
            f"Step {step_key!r} of execution {execution_id!r} waits no longer for an answer: its time is over.",
            Conflict.code,
        )
    if wait and wait[0][6] is not None:
        # A push worker's step: its answer is an event of the run's topic, and whoever follows that sees it. Others of
        # the run may wait for one of the same type: an id of version 5 says that it is no answer to them.
        answer = EventItem(data, wait[0][6])
        event_id = str(uuid5(UUID(execution_id), wait[0][6]))  # there is but one answer
        await publish_events(project_id, wait[0][1], [answer], [event_id], now_us, answers=execution_id)
        return None
    if wait and wait[0][7] is not None:
        return Problem(
            f"Step {step_key!r} of execution {execution_id!r} waits for executions to end, not for an answer.",
            Conflict.code,
        )
    if wait and wait[0][1] is not None:
        return Problem(
            f"Step {step_key!r} of execution {execution_id!r} waits for an event of topic {wait[0][1]!r}, "
            "not for an answer.",
            Conflict.code,
        )
    if not wait and (await query("count_early", execution_id=execution_id))[0][0] >= EARLY_MAX:
        return Problem(
            f"Execution {execution_id!r} holds {EARLY_MAX:,} early answers, for which no step has asked yet: that is "
            f"the most it may hold. Check the step key {step_key!r}, or answer once the step asks.",
            Conflict.code,
        )
    if wait:
        await query("meet_wait", execution_id=execution_id, key=step_key, event_seq=None, data=None)
        await deliver(project_id, execution_id, Kind.RESUME, now_us, key=step_key, value=data)
    else:
        early = (execution_id, step_key, project_id, "early", None, None, None, None, bytes(data), now_us, None)
        await query_many("insert_wait", [early])
    return None


async def _stands(execution_id: str, step_key: str, wait: tuple[Any, ...], data: bytes) -> bool:
    """Whether the answer that stands is this one."""
    state, early = wait[0], wait[4]
    if state == "early":
        return bytes(early) == data
    if state != "met":
        return False
    found = await query("read_answer", execution_id=execution_id, key=step_key)
    return bool(found) and bytes(found[0][0]) == data


@verb
async def list_waits(*, project_id: str, execution_id: str) -> Rows:
    """The open waits of an execution: key, topic, match, data, opened_at_us."""
    if not await query("read_state", project_id=project_id, id=execution_id):
        raise NotFound(f"Execution {execution_id!r} does not exist.")
    return await query("list_waits", execution_id=execution_id)
