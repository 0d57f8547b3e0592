"""Reports: what is recorded, what a repeat is told, what an execution may do to itself."""

import pytest
from msgspec import Raw, json
from tests.store.world import (
    BLOCK,
    CANCELLED,
    PROJECT,
    RELEASE,
    SECOND,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
)

from perdure.store.verbs.base.shared_values import SHARED_BYTES_MIN
from perdure.store.verbs.runs import queries, reports
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import LogLine
from perdure.wire.runs.requests import (
    Answer,
    CloseWait,
    Complete,
    End,
    Entry,
    EventItem,
    ItemReply,
    Publish,
    ReportItem,
    Suspend,
    TimerFired,
)


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register()


def publish(key: str, topic: str, *data: object) -> Publish:
    return Publish(key, None, topic, [EventItem(raw(value)) for value in data])


async def test_a_report_records_outcomes_in_the_order_of_its_entries(world: World) -> None:
    id = await world.running()
    reply = await world.report(id, [step("a", 1), TimerFired("t", world.now_us), step("b", 2, ok=False)])
    assert reply == ItemReply(accepted=[2, 3, 4], at_us=world.now_us)
    rows = await world.journal(id)
    assert [(row.seq, row.kind, row.key, row.ok) for row in rows[1:]] == [
        (2, Kind.STEP, "a", True),
        (3, Kind.TIMER, "t", True),
        (4, Kind.STEP, "b", False),
    ]


@pytest.mark.parametrize("value", [0, "", [], {}, False, None])
async def test_falsy_outcomes_are_outcomes(world: World, value: object) -> None:
    id = await world.running()
    await world.report(id, [step("s", value)])
    assert (await world.journal(id))[-1].value == raw(value)
    await world.finish(id, result=value)
    assert (await world.get(id)).result == raw(value)


async def test_values_come_back_byte_for_byte(world: World) -> None:
    text = b'{"b": 1.10, "a":123456789012345678901234567890, "a": "\\u0000\\ud83d\\ude00 caf\xc3\xa9"}'
    id = await world.start(payload=Raw(text))
    assert bytes((await world.claim())[0].payload) == text
    await world.report(id, end=Complete(Raw(text)))
    assert bytes((await world.get(id)).payload) == text
    assert bytes((await world.get(id)).result or b"") == text


@pytest.mark.parametrize(
    "end",
    [None, Suspend(["k"], None), Complete(raw(1)), failure(), failure(retry_delay_us=0), RELEASE, BLOCK],
    ids=["no end", "suspend", "complete", "fail", "retry", "release", "block"],
)
async def test_a_repeat_gets_the_first_answer_and_changes_nothing(world: World, end: End | None) -> None:
    """A worker whose reply was lost sends the same item again (same number)."""
    id = await world.running()
    entries: list[Entry] = [step("s", 1), step("u", 2)]
    if type(end) is Suspend:
        entries.append(answer_wait("k"))
    item = ReportItem(id, 1, 1, 1, entries, end, [LogLine(at_us=1, level=20, text="said")])
    first = await world.send(item)
    assert first.ended is (end is not None)
    before = await world.everything(id)
    again = await world.send(item)
    assert await world.everything(id) == before
    assert again.ended is first.ended
    if end is None:
        assert again == first
    assert not again.lost


async def test_a_repeat_names_the_rows_of_effects_like_the_first_time(world: World) -> None:
    id = await world.running()
    other = await world.running()
    entries: list[Entry] = [
        child("c"),
        step("s", 1),
        publish("p", "topic", 1, 2),
        Answer("a", None, other, "k", raw("yes")),
        step("t", 1, ok=False, last=False),
        step("t", 2, ok=False, last=False, tries=2),
        step("t", 3, tries=3),
        event_wait("w", "topic"),
        CloseWait("none"),
    ]
    item = ReportItem(id, 1, 1, 1, entries)
    first = await world.send(item)
    assert first.accepted == [2, 3, 4, 5, 6, 7, 8, 0, 0]
    assert [row.kind for row in first.rows] == [Kind.CHILD_STARTED, Kind.PUBLISHED, Kind.SENT, Kind.EVENT]
    assert await world.send(item) == first
    assert len(await world.read_topic("topic")) == 2


async def test_a_repeat_shows_what_others_wrote_meanwhile(world: World) -> None:
    id = await world.running()
    await world.report(id, [answer_wait("k")])
    item = ReportItem(id, 1, 2, 1, [step("s", 1)])
    await world.send(item)
    await world.resume(id, "k")
    again = await world.send(item)
    assert [row.kind for row in again.rows] == [Kind.RESUME]
    assert again.accepted == [2]


async def test_the_first_outcome_of_a_key_stands(world: World) -> None:
    """I2: the database itself refuses a second record of a step, and nothing of the report is kept."""
    id = await world.running()
    await world.report(id, [step("s", "first")])
    before = await world.everything(id)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await world.report(id, [step("t", 1), step("s", "second")])
    assert await world.everything(id) == before
    assert await world.outcomes(id, Kind.STEP) == ["first"]


async def test_a_failed_try_is_no_outcome(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("s", "no", ok=False, last=False)])
    await world.report(id, [step("s", "no", ok=False, last=False, tries=2)])
    await world.report(id, [step("s", "yes", tries=3)])
    assert await world.kinds(id) == ["claimed", "step_failed", "step_failed", "step"]


async def test_the_rows_that_a_worker_has_not_seen_come_with_every_reply(world: World) -> None:
    id = await world.running()
    await world.report(id, [answer_wait("k"), answer_wait("l")])
    await world.resume(id, "k", 1)
    await world.resume(id, "l", 2)
    reply = await world.report(id, [step("s", 1)], seen=1)
    assert [(row.seq, row.kind, row.key) for row in reply.rows] == [(2, Kind.RESUME, "k"), (3, Kind.RESUME, "l")]
    assert reply.accepted == [4]
    assert [row.seq for row in (await world.acknowledge(id, seen=2)).rows] == [3, 4]


async def test_suspending_is_refused_while_an_outcome_is_unseen(world: World) -> None:
    """I5: between the last look and the suspend an answer may have come."""
    id = await world.running()
    await world.report(id, [answer_wait("k"), answer_wait("l")])
    await world.resume(id, "k")
    reply = await world.report(id, end=Suspend(["l"]), seen=1)
    assert not reply.ended
    assert [row.kind for row in reply.rows] == [Kind.RESUME]
    assert await world.phase(id) is Phase.RUNNING
    assert (await world.report(id, end=Suspend(["l"]), seen=2)).ended


async def test_suspending_on_what_is_there_already_is_refused_with_it(world: World) -> None:
    id = await world.running()
    await world.publish("topic", "early")
    reply = await world.wait_for(id, event_wait("w", "topic"))
    assert not reply.ended
    assert [row.kind for row in reply.rows] == [Kind.EVENT]


async def test_suspending_closes_waits_that_an_earlier_attempt_left_open(world: World) -> None:
    id = await world.running()
    await world.report(id, [event_wait("old", "topic")])
    await world.lose()
    await world.register()
    await world.claim()
    await world.wait_for(id, answer_wait("new"))
    await world.publish("topic", 1)
    assert await world.phase(id) is Phase.WAITING
    await world.resume(id, "new")
    assert await world.phase(id) is Phase.QUEUED


async def test_waiting_for_nothing_is_refused(world: World) -> None:
    """Such an execution would wait for ever, for no visible reason."""
    id = await world.running()
    reply = await world.report(id, end=Suspend([]))
    assert reply.problem is not None
    assert reply.problem.error_type == "ILLEGAL_MOVE"
    assert await world.phase(id) is Phase.RUNNING
    reply = await world.report(id, end=Suspend(["never opened"]))
    assert reply.problem is not None
    assert (await world.report(id, [child("c")])).rows[0].ok
    assert (await world.report(id, end=Suspend([]))).ended


async def test_a_timer_that_has_fired_is_not_waited_for_again(world: World) -> None:
    """No worker of ours does so. When such a timer was due, the timers of all projects stood still."""
    id, other = await world.running(), await world.running()
    await world.report(id, [TimerFired("t", world.now_us)])
    for reply in (
        await world.report(id, end=Suspend([], ("t", world.now_us + SECOND)), seen=2),
        await world.report(id, [TimerFired("u", world.now_us)], Suspend([], ("u", world.now_us + SECOND)), seen=2),
    ):
        assert not reply.ended
        assert reply.problem is not None and reply.problem.error_type == "ILLEGAL_MOVE"
        assert "has fired already" in reply.problem.error
    assert (await world.report(id, end=Suspend([], ("v", world.now_us + SECOND)), seen=3)).ended
    assert (await world.report(other, end=Suspend([], ("t", world.now_us + SECOND)))).ended
    world.advance(2)
    assert await world.wake_due() == 2
    assert [await world.phase(one) for one in (id, other)] == [Phase.QUEUED] * 2


async def test_an_execution_that_is_being_cancelled_does_not_go_back_to_a_queue(world: World) -> None:
    id = await world.running()
    await world.cancel(id)
    for end in (Suspend([], ("t", world.now_us + SECOND)), failure(retry_delay_us=0), RELEASE, BLOCK):
        assert not (await world.report(id, end=end)).ended
        assert await world.phase(id) is Phase.CANCELLING
    assert (await world.report(id, [step("clean", 1)], CANCELLED)).ended


async def test_an_end_counts_even_when_the_reply_cannot_carry_every_row(world: World) -> None:
    id = await world.running()
    rows = [step(f"s{n}", "x" * 1_000_000) for n in range(9)]
    await world.report(id, rows)
    reply = await world.report(id, end=failure(retry_delay_us=0), seen=1)
    assert reply.more
    assert reply.ended
    assert await world.phase(id) is Phase.QUEUED


async def test_suspending_is_put_off_until_every_row_was_seen(world: World) -> None:
    id = await world.running()
    await world.report(id, [step(f"s{n}", "x" * 1_000_000) for n in range(9)])
    reply = await world.wait_for(id, answer_wait("k"))
    assert reply.ended
    await world.resume(id, "k")
    [claimed] = await world.claim()
    reply = await world.report(id, [answer_wait("l")], Suspend(["l"]), seen=1)
    assert reply.more and not reply.ended
    assert len(reply.rows) < len(claimed.rows)


@pytest.mark.parametrize("fields", [{}, {"latest": True}], ids=["next", "latest"])
async def test_an_execution_hears_what_it_publishes_itself(world: World, fields: dict[str, bool]) -> None:
    """Waits are opened in the order of the entries, and the reply has every row, without a gap."""
    id = await world.running()
    reply = await world.report(id, [event_wait("w", "topic", **fields), publish("p", "topic", 1), event_wait("v", "u")])
    assert [row.kind for row in reply.rows] == [Kind.PUBLISHED, Kind.EVENT]
    assert [row.seq for row in reply.rows] == [2, 3]


async def test_an_execution_may_answer_itself(world: World) -> None:
    id = await world.running()
    await world.report(id, [answer_wait("k")])
    reply = await world.report(id, [Answer("a", None, id, "k", raw("me")), step("s", 1)])
    assert [(row.seq, row.kind) for row in reply.rows] == [(2, Kind.SENT), (4, Kind.RESUME)]
    assert reply.accepted == [2, 3]


async def test_a_refused_effect_is_recorded_as_such_and_disturbs_nobody(world: World) -> None:
    id = await world.running()
    reply = await world.report(
        id, [child("c", "no such workflow"), Answer("a", None, world.new_id(), "k", raw(1)), step("s", 1)]
    )
    assert [row.ok for row in reply.rows] == [False, False]
    assert json.decode(reply.rows[0].value)["type"] == "WORKFLOW_NOT_FOUND"
    assert json.decode(reply.rows[1].value)["type"] == "NOT_FOUND"
    assert reply.accepted == [2, 3, 4]


async def test_a_failure_that_is_retried_takes_the_step_s_failure_back(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1)])
    reply = await world.report(id, [step("s", "boom", ok=False)], failure(retry_delay_us=5 * SECOND, take_back=["s"]))
    assert reply.ended
    assert await world.kinds(id) == ["claimed", "step", "step_failed", "retried"]
    retried = (await world.journal(id))[-1]
    assert (json.decode(retried.value), retried.name) == (3, "it failed")
    assert (await world.get(id)).retry_count == 1
    assert await world.claim() == []  # not before its time
    world.advance(5)
    await world.wake_due()
    [claimed] = await world.claim()
    assert (claimed.attempt, claimed.retry_count) == (2, 1)
    await world.report(id, [step("s", "fine")])  # its key is free again
    assert await world.outcomes(id, Kind.STEP) == [1, "fine"]


async def test_only_a_failure_can_be_taken_back(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("s", 1)])
    await world.report(id, end=failure(retry_delay_us=0, take_back=["s"]))
    assert await world.kinds(id) == ["claimed", "step", "retried"]
    assert await world.outcomes(id, Kind.RETRIED) == [None]


async def test_failures_that_ended_an_attempt_together_are_taken_back_together(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("stays", "caught", ok=False), step("a", "boom", ok=False)])
    steps = [step("b", "boom", ok=False), step("fine", 1)]
    await world.report(id, steps, failure(retry_delay_us=0, take_back=["b", "fine", "a", "unknown", "b"]))
    assert await world.kinds(id) == ["claimed", "step", "step_failed", "step_failed", "step", "retried"]
    assert await world.outcomes(id, Kind.RETRIED) == [[3, 4]]
    await world.claim()
    await world.report(id, [step("a", 2), step("b", 3)])
    assert await world.outcomes(id, Kind.STEP) == ["caught", 1, 2, 3]
    rows = await world.journal(id)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))


async def test_the_journal_has_no_gap_and_its_time_never_goes_back(world: World) -> None:
    id = await world.running()
    for n in range(5):
        world.advance(-1)  # a clock that was set back
        await world.report(id, [step(f"s{n}", n), answer_wait(f"k{n}")])
        await world.resume(id, f"k{n}")
    world.advance(-1)
    await world.wait_for(id, answer_wait("k"))
    await world.resume(id, "k")
    await world.claim()
    await world.finish(id)
    rows = await world.journal(id)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.at_us for row in rows] == sorted(row.at_us for row in rows)
    execution = await world.get(id)
    assert (execution.completed_at_us or 0) >= rows[-2].at_us


async def test_logs_keep_the_last_thousand_lines(world: World) -> None:
    id = await world.running()
    for start in (0, 700):
        lines = [LogLine(at_us=world.now_us, level=20, text=f"line {n}") for n in range(start, start + 700)]
        await world.report(id, logs=lines)
    await world.report(id, logs=[LogLine(at_us=1, level=40, text=f"long {n}") for n in range(1_500)])
    kept = await world.store.read(queries.logs(project_id="project", execution_id=id, after=0, limit=5_000))
    assert len(kept) == 1_000
    assert [line.text for line in kept][:2] == ["long 500", "long 501"]
    numbers = [line.n for line in kept]
    assert numbers == list(range(numbers[0], numbers[0] + 1_000))


async def test_progress_is_the_latest(world: World) -> None:
    id = await world.running()
    await world.report(id, progress={"done": 1})
    await world.report(id, [step("s", 1)])
    assert (await world.get(id)).progress == raw({"done": 1})
    await world.report(id, end=Complete(raw(None)), progress={"done": 2})
    assert (await world.get(id)).progress == raw({"done": 2})


async def test_a_parked_execution_goes_on_where_its_worker_left_it(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("s", 1), answer_wait("k")])
    assert (await world.report(id, end=Suspend(["k"], parked=True), seen=2)).ended
    await world.resume(id, "k", 7)
    [claimed] = await world.claim()
    assert claimed.base == 2
    assert [row.kind for row in claimed.rows] == [Kind.WAITING, Kind.RESUME, Kind.CLAIMED]


async def test_another_worker_gets_the_whole_journal_of_a_parked_execution(world: World) -> None:
    await world.register("w2")
    id = await world.running()
    await world.wait_for(id, answer_wait("k"))
    await world.resume(id, "k")
    [claimed] = await world.claim("w2")
    assert claimed.base == 0
    assert claimed.rows[0].seq == 1


async def test_a_step_gets_the_next_number_and_no_earlier_time_whatever_its_worker_has_seen(world: World) -> None:
    id = await world.running()
    first_us = world.now_us
    assert await world.report(id, [step("a")]) == ItemReply(accepted=[2], at_us=first_us)
    world.advance(-5)
    assert await world.report(id, [step("b")]) == ItemReply(accepted=[3], at_us=first_us)
    world.advance(10)
    told = await world.report(id, [step("c")], seen=2)
    assert ([row.seq for row in told.rows], told.accepted, told.at_us) == ([3], [4], world.now_us)
    assert (await world.report(id, [step("d")], seen=9)).accepted == [5]
    assert [(row.seq, row.key) for row in (await world.journal(id))[1:]] == [(2, "a"), (3, "b"), (4, "c"), (5, "d")]


async def test_steps_that_are_recorded_together_are_answered_as_each_by_itself(world: World) -> None:
    """The items cover a repeat, a stale attempt, unseen rows and an early clock."""

    async def scene() -> list[ReportItem]:
        plain, later, stale, again, ended, ahead = [await world.running() for _ in range(6)]
        await world.report(later, [answer_wait("k")])
        await world.resume(later, "k")
        repeat = ReportItem(again, 1, 1, 1, [step("s", 3)])
        await world.send(repeat)
        await world.finish(ended)
        world.advance(10)
        await world.report(ahead, [step("r")])
        world.advance(-10)
        return [
            ReportItem(plain, 1, 1, 1, [step("s", 1)]),
            ReportItem(later, 1, 2, 1, [step("s", 2, ok=False)]),
            ReportItem(stale, 2, 1, 1, [step("s")]),
            repeat,
            ReportItem(ended, 1, 2, 1, [step("s")]),
            ReportItem(ahead, 1, 2, 2, [step("s")]),
        ]

    one_by_one = await scene()
    expected = [await world.send(item) for item in one_by_one]
    items = await scene()
    assert all(map(reports.is_next_step, items))
    together = reports.record_steps(project_id=PROJECT, worker_id="w", items=items, now_us=world.now_us)
    assert await world.store.write(together) == expected
    for item, other in zip(items, one_by_one, strict=True):
        assert await world.journal(item.execution_id) == await world.journal(other.execution_id)
        assert await world.phase(item.execution_id) == await world.phase(other.execution_id)
    assert [reply.accepted for reply in expected] == [[2], [3], [], [2], [], [3]]


RETURNED = Complete(raw(1), returns_step=True)


async def test_a_step_and_the_end_that_returns_it_are_one_report(world: World) -> None:
    id = await world.running()
    item = ReportItem(id, 1, 1, 1, [step("a", 1)], RETURNED)
    for _ in range(2):  # the second is a repeat after a lost reply
        assert (await world.send(item)).ended
    execution, rows = await world.everything(id)
    assert execution.phase is Phase.COMPLETED
    assert bytes(execution.result or b"") == b"1"
    assert [(row.seq, row.kind, row.key) for row in rows[1:]] == [(2, Kind.STEP, "a"), (3, Kind.COMPLETED, None)]


async def test_an_end_that_returns_its_step_waits_for_rows_that_the_code_has_not_seen(world: World) -> None:
    id = await world.running()
    await world.cancel(id)
    item = ReportItem(id, 1, 1, 1, [step("a", 1)], RETURNED)
    for _ in range(2):
        reply = await world.send(item)
        assert not (reply.ended or reply.lost)
        assert [row.kind for row in reply.rows] == [Kind.CANCEL]
        assert reply.accepted == [3]
    assert await world.phase(id) is Phase.CANCELLING
    assert [row.kind for row in await world.journal(id)][1:] == [Kind.CANCEL, Kind.STEP]


async def test_a_large_result_is_kept_as_the_value_of_its_step(world: World) -> None:
    id = await world.running()
    large = "x" * SHARED_BYTES_MIN
    assert (await world.report(id, [step("a", large)], Complete(raw(large), returns_step=True), seen=1)).ended
    assert bytes((await world.get(id)).result or b"") == bytes(raw(large))
    assert await world.outcomes(id, Kind.STEP) == [large]
