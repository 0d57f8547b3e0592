"""Work for push workers: the results of calls, and the isolation of one worker's trouble."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.push_worker import DROP, HANG, LOOPBACK, PushWorker, push_worker
from tests.server.serving import Served, serving

from perdure.engine.outside import dispatch, push
from perdure.store.verbs.outside import push_steps
from perdure.store.verbs.runs import queries
from perdure.wire.base.signatures import verify
from perdure.wire.base.status import Phase

Json = Any


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database, outbound_hosts=LOOPBACK) as served:
        yield served


@pytest.fixture
async def worker(served: Served) -> AsyncIterator[PushWorker]:
    async with push_worker(served) as worker:
        yield worker


async def start(served: Served, workflow_id: str = "w", **fields: Json) -> str:
    return await served.start(workflow_id, deployment_id="push", accept_early=False, **fields)


async def shown(served: Served, id: str) -> Json:
    return (await served.client.get(f"/api/v1/executions/{id}")).json()


async def until_phase(served: Served, id: str, phase: Phase) -> Json:
    async def there() -> bool:
        return bool((await shown(served, id))["phase"] == phase)

    await until(there)
    return await shown(served, id)


async def kinds(served: Served, id: str) -> list[str]:
    return [row.kind.value for row in (await served.engine.executions.journal(served.project_id, id))[0]]


async def until_acknowledged(served: Served, id: str) -> None:
    async def acknowledged() -> bool:
        where = await served.engine.store.read(push_steps.standing(project_id=served.project_id, execution_id=id))
        return bool(where.acked)

    await until(acknowledged)


async def test_work_is_brought_whole_and_signed(served: Served, worker: PushWorker) -> None:
    id = await start(
        served, "order", payload={"n": 1}, user_id="u", initial_state={"s": 1}, otel_traceparent="00-a-b-01"
    )
    body = await worker.until_pushed(id)
    created_at = (await shown(served, id))["created_at"]
    assert body == {
        "worker_id": worker.id,
        "execution_id": id,
        "workflow_id": "order",
        "created_at": created_at,
        "retry_count": 0,
        "payload": {"n": 1},
        "deployment_id": "push",
        "parent_execution_id": None,
        "root_execution_id": id,
        "root_workflow_id": "order",
        "step_key": None,
        "session_id": id,
        "user_id": "u",
        "otel_traceparent": "00-a-b-01",
        "otel_span_id": None,
        "initial_state": {"s": 1},
        "channel_context": None,
        "run_timeout_seconds": None,
    }
    [call] = [call for call in worker.calls if call.path == "/execute"]
    assert call.headers["x-worker-id"] == worker.id
    secret = (await served.engine.signing.secrets(served.project_id)).at(0)[0]
    verify(secret, call.headers, call.body, now_seconds=time.time())
    assert (await worker.complete(id, {"m": 2})).status_code == 200
    found = await shown(served, id)
    assert (found["status"], found["result"], found["assigned_to_worker"]) == ("completed", {"m": 2}, worker.id)


async def test_a_worker_gets_no_more_than_it_takes(served: Served) -> None:
    async with push_worker(served, capacity=2) as worker:
        ids = [await start(served) for _ in range(5)]
        done: list[str] = []
        while len(done) < 5:
            await worker.until(lambda: len(worker.pushed()) >= min(len(done) + 2, 5))
            assert len(worker.pushed()) <= len(done) + 2
            id = worker.pushed()[len(done)]["execution_id"]
            assert (await worker.complete(id)).status_code == 200
            done.append(id)
        assert sorted(done) == sorted(ids)


async def test_one_worker_that_hangs_slows_no_other(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 600.0)
    async with push_worker(served, deployment="slow", capacity=100) as slow:
        slow.answer = lambda body: HANG
        stuck = [await served.start("w", deployment_id="slow") for _ in range(30)]
        await slow.until(lambda: len(slow.pushed()) >= dispatch.CALLS_MAX)
        for _ in range(20):
            id = await start(served)
            await worker.until_pushed(id)
            await worker.complete(id)
        assert len(slow.pushed()) == dispatch.CALLS_MAX, "only so many calls at a time"
        assert len(stuck) == 30


async def test_a_full_worker_is_left_alone_for_a_moment(served: Served, worker: PushWorker) -> None:
    full = True
    worker.answer = lambda body: 429 if full else 200
    id = await start(served)
    await worker.until_pushed(id)
    before = time.monotonic()
    await worker.until_pushed(id, 3)
    assert len(worker.pushed()) <= 3 + (time.monotonic() - before) / dispatch.REST_SECONDS, "no spinning"
    full = False
    await worker.until(lambda: not full)
    await until_acknowledged(served, id)
    await worker.complete(id)
    found = await shown(served, id)
    assert (found["status"], found["retry_count"]) == ("completed", 0)
    assert "lost" not in await kinds(served, id)


async def test_the_rests_of_a_full_worker_are_kept(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the refused call ends no rest."""
    loop = asyncio.get_running_loop()
    brought: list[float] = []
    rests: list[tuple[float, float]] = []
    rest, deliver = dispatch.Lane.rest, dispatch.Lane._deliver

    def noted_rest(self: dispatch.Lane, *asked: float, full: bool = False) -> None:
        before = loop.time()
        rest(self, *asked, full=full)
        rests.append((self._rest_until - before, self._rest_until))

    async def noted_deliver(self: dispatch.Lane, one: Any) -> None:
        brought.append(loop.time())
        await deliver(self, one)

    monkeypatch.setattr(dispatch.Lane, "rest", noted_rest)
    monkeypatch.setattr(dispatch.Lane, "_deliver", noted_deliver)
    worker.answer = lambda body: 429
    id = await start(served)
    await worker.until_pushed(id, 4)
    for (asked, _), least in zip(rests, (0.1, 0.2, 0.4), strict=False):
        assert asked > least - 0.001
    for (_, rested), again in zip(rests, brought[1:], strict=False):
        assert again > rested - 0.01, "a timer may be a little early"
    worker.answer = lambda body: 200
    await until_acknowledged(served, id)
    assert (await kinds(served, id)).count("released") == len(brought) - 1


async def test_a_rest_that_begins_while_a_claim_is_under_way_is_kept(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    until: list[float] = []
    brought: list[float] = []
    a_round, deliver = dispatch.Lane._round, dispatch.Lane._deliver

    async def noted_round(self: dispatch.Lane) -> None:
        write = self._core.store.write

        async def writing(verb: Any) -> Any:
            answer = await write(verb)
            if verb.name == "claim_pushed" and answer.picked and not until:
                self.rest(0.3)
                until.append(self._rest_until)
            return answer

        with monkeypatch.context() as patched:
            patched.setattr(self._core.store, "write", writing)
            await a_round(self)

    async def noted_deliver(self: dispatch.Lane, one: Any) -> None:
        brought.append(loop.time())
        await deliver(self, one)

    monkeypatch.setattr(dispatch.Lane, "_round", noted_round)
    monkeypatch.setattr(dispatch.Lane, "_deliver", noted_deliver)
    id = await start(served)
    await worker.until_pushed(id, 1)
    assert brought[0] > until[0] - 0.01, "a timer may be a little early"


async def test_an_end_before_the_rest_of_a_full_worker_began_is_not_missed(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REST_SECONDS", 60.0)
    monkeypatch.setattr(dispatch, "REST_SECONDS_MAX", 60.0)
    rest = dispatch.Lane.rest

    def rest_and_end(self: dispatch.Lane, *asked: float, full: bool = False) -> None:
        rest(self, *asked, full=full)
        served.engine.dispatcher.room_again(self.worker.id)

    monkeypatch.setattr(dispatch.Lane, "rest", rest_and_end)
    worker.answer = lambda body: 429 if len(worker.pushed()) < 2 else 200
    id = await start(served)
    await worker.until_pushed(id, 2)
    await until_acknowledged(served, id)


async def test_an_end_makes_room_in_a_full_worker_at_once(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REST_SECONDS_MAX", 60.0)
    first = await start(served)
    await worker.until_pushed(first)
    await until_acknowledged(served, first)
    worker.answer = lambda body: 429 if not done else 200
    done: list[str] = []
    second = await start(served)
    await worker.until_pushed(second)
    await asyncio.sleep(0)
    done.append(first)
    await worker.complete(first)
    await until_acknowledged(served, second)


async def test_a_worker_that_is_online_before_it_listens(served: Served) -> None:
    worker = PushWorker(served)
    await worker.listen()
    await worker.die()
    await worker.register()
    id = await start(served)

    async def handed_back() -> bool:
        return "released" in await kinds(served, id)

    await until(handed_back)
    await worker.listen()
    await worker.until_pushed(id)
    await worker.complete(id)
    assert (await shown(served, id))["status"] == "completed"
    assert "lost" not in await kinds(served, id)
    await worker.die()


@pytest.mark.slow
async def test_a_worker_that_refuses_is_gone_and_its_work_goes_to_another(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "YOUNG_US", 0)
    monkeypatch.setattr(dispatch, "CHECK_US", 200_000)
    monkeypatch.setattr(dispatch, "CHECK_AGAIN_US", 100_000)
    id = await start(served)
    await worker.until_pushed(id)
    await until_acknowledged(served, id)
    async with push_worker(served) as second:
        await worker.die()
        body = await second.until_pushed(id)
        assert body["worker_id"] == second.id
        assert (await worker.complete(id)).status_code == 409
        await second.complete(id)
    assert "lost" in await kinds(served, id)
    beat = await served.client.post(f"/api/v1/workers/{worker.id}/heartbeat")
    assert beat.json() == {"re_register": False}, "it is remembered: a new id would be of no use to its running work"
    await worker.listen()  # for the end of the test


async def test_a_server_that_is_not_to_call_a_worker_leaves_it_to_others(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "CHECK_US", 100_000)
    monkeypatch.setattr(dispatch, "YOUNG_US", 0)
    monkeypatch.setattr(dispatch, "BARRED_SECONDS", 0.3)
    allows = served.engine.outbound.policy.allows
    monkeypatch.setattr(served.engine.outbound.policy, "allows", lambda *asked: False)
    id = await start(served)

    async def handed_back() -> bool:
        return "released" in await kinds(served, id)

    await until(handed_back)
    monkeypatch.setattr(served.engine.outbound.policy, "allows", allows)
    await worker.until_pushed(id)
    assert "is not to be called from here" in caplog.text
    assert "lost" not in await kinds(served, id)


async def test_a_lost_reply_is_no_second_push(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ACKNOWLEDGED_SECONDS", 600.0)
    worker.answer = lambda body: DROP
    id = await start(served)
    await worker.until_pushed(id)
    assert (await worker.step(id, "publish_start")).status_code == 404  # it runs it, after all
    await until_acknowledged(served, id)
    assert len(worker.pushed(id)) == 1
    assert (await worker.complete(id)).status_code == 200


async def test_a_delivery_that_nothing_is_heard_of_is_lost(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ACKNOWLEDGED_SECONDS", 0.2)
    worker.answer = lambda body: DROP if len(worker.pushed()) < 2 else 200
    id = await start(served)
    await worker.until_pushed(id, 2)
    await until_acknowledged(served, id)
    await worker.complete(id)
    found = await shown(served, id)
    assert (found["status"], found["retry_count"], found["attempt"]) == ("completed", 0, 2)
    assert "lost" in await kinds(served, id)


async def test_a_saved_step_says_that_the_worker_has_it(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "NOTE_SECONDS", 3_600.0)
    id = await start(served)
    await worker.until_pushed(id)
    assert (await worker.step(id, "publish_start")).status_code == 404
    assert (await worker.say(id, "steps", {"step_key": "publish_start", "success": True})).status_code == 200
    await until_acknowledged(served, id)


async def test_what_was_taken_is_written_down_at_the_end_of_the_server(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "NOTE_SECONDS", 3_600.0)
    dispatcher = served.engine.dispatcher
    id = await start(served)
    await worker.until_pushed(id)
    await until(lambda: id not in dispatcher.deliveries)
    await dispatcher.close()
    await until_acknowledged(served, id)


async def test_what_is_taken_while_the_server_ends_is_written_down(served: Served, worker: PushWorker) -> None:
    worker.answer = lambda body: HANG
    id = await start(served)
    await worker.until_pushed(id)
    served.engine.closing = True  # no lane is opened any more
    closing = asyncio.create_task(served.engine.dispatcher.close())
    await asyncio.sleep(0)
    worker.go_on.set()
    await closing
    where = await served.engine.store.read(push_steps.standing(project_id=served.project_id, execution_id=id))
    assert where.acked == 1


@pytest.mark.parametrize("resting", [False, True])
async def test_what_was_claimed_when_the_server_ends_goes_back_at_once(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch, resting: bool
) -> None:
    dispatcher = served.engine.dispatcher
    under_way, go_on = asyncio.Event(), asyncio.Event()
    write = served.engine.store.write

    async def writing(verb: Any) -> Any:
        answer = await write(verb)
        if verb.name == "claim_pushed" and answer.picked:
            if resting:  # a call that was refused meanwhile: what is claimed waits for the end of the rest
                dispatcher._lanes[worker.id].rest(60.0)
            under_way.set()
            await go_on.wait()
        return answer

    monkeypatch.setattr(served.engine.store, "write", writing)
    id = await start(served)
    await under_way.wait()
    served.engine.closing = True  # no lane is opened any more
    if resting:
        go_on.set()
        for _ in range(10):  # turns in which the lane hears of its claim, and rests
            await asyncio.sleep(0)
    closing = asyncio.create_task(dispatcher.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert (await shown(served, id))["phase"] == "queued"
    assert (await kinds(served, id))[-2:] == ["claimed", "released"]
    assert worker.pushed(id) == []


async def test_a_cancel_that_the_end_of_the_server_kept_from_its_worker_is_told_by_another(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CLOSE_SECONDS", 0.05)
    worker.cancel_answer = HANG
    id = await start(served)
    await until_acknowledged(served, id)
    assert (await served.client.post(f"/api/v1/executions/{id}/cancel")).status_code == 200
    await worker.until(lambda: any(call.path == f"/cancel/{id}" for call in worker.calls))
    served.engine.closing = True
    await served.engine.dispatcher.close()
    where = await served.engine.store.read(push_steps.standing(project_id=served.project_id, execution_id=id))
    assert (where.phase, where.acked) == (Phase.CANCELLING, 1)


async def test_a_delivery_whose_server_died_is_looked_after(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server ends between its claim and its call."""
    monkeypatch.setattr(dispatch, "UNTOLD_US", 100_000)
    monkeypatch.setattr(dispatch, "SWEEP_SECONDS", 0.1)
    real = dispatch.Lane._deliver
    died: list[str] = []

    async def dies(self: dispatch.Lane, one: Any) -> None:
        if not died:
            died.append(one.claimed.id)
            return
        await real(self, one)

    monkeypatch.setattr(dispatch.Lane, "_deliver", dies)
    id = await start(served)
    body = await worker.until_pushed(id)
    assert died == [id] and body["execution_id"] == id


async def test_somebody_else_under_the_url_ends_the_registration(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MISTAKEN_SECONDS", 0.0)
    worker.answer = lambda body: 400 if body["worker_id"] == old else 200
    old = worker.id
    id = await start(served)
    await worker.until_pushed(id)

    async def forgotten() -> bool:
        return bool((await served.client.post(f"/api/v1/workers/{old}/heartbeat")).json()["re_register"])

    await until(forgotten)
    await worker.register()
    await worker.until(lambda: any(body["worker_id"] == worker.id for body in worker.pushed(id)))


@pytest.mark.parametrize("status", [404, 503])
async def test_whoever_else_answers_under_the_url_is_not_taken_for_the_worker(
    served: Served, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The worker is gone, and the program that now has the port knows no health of the worker: its answers renew no
    lease."""
    for module in (dispatch, push):
        monkeypatch.setattr(module, "CHECK_US", 100_000)

    async def lease_until_us() -> int:
        [only] = await served.engine.store.read(queries.list_workers(project_id=served.project_id))
        return only.lease_until_us

    async def asked(worker: PushWorker, times: int) -> None:
        so_far = len(worker.calls)
        await worker.until(lambda: [call.path for call in worker.calls[so_far:]].count("/health") >= times)

    async with push_worker(served) as worker:
        began_us = await lease_until_us()
        await asked(worker, 4)
        assert await lease_until_us() > began_us
        worker.health_answer = status
        await asked(worker, 3)
        told_us = await lease_until_us()
        await asked(worker, 4)
        assert await lease_until_us() == told_us


async def test_a_worker_that_starts_anew_takes_the_place_of_its_old_self(served: Served, worker: PushWorker) -> None:
    id = await start(served)
    await worker.until_pushed(id)
    await until_acknowledged(served, id)
    old = worker.id
    await worker.register()
    body = await worker.until_pushed(id, 2)
    assert body["worker_id"] == worker.id != old
    assert (await worker.complete(id)).status_code == 200
    active = (await served.client.get("/api/v1/workers/active")).json()
    assert active == {"worker_ids": [worker.id]}


@pytest.mark.slow
async def test_a_run_that_kills_its_worker_each_time_fails(served: Served, worker: PushWorker) -> None:
    id = await start(served)
    for times in range(1, 6):
        async with asyncio.timeout(60):
            await worker.until_pushed(id, times)
        await until_acknowledged(served, id)
        await worker.register()
    found = await until_phase(served, id, Phase.FAILED)
    assert found["error"].startswith("POISONED") and found["retry_count"] == 0
    other = await start(served)
    await worker.until_pushed(other)
    assert (await worker.complete(other)).status_code == 200


async def test_a_cancel_is_told_and_confirmed(served: Served, worker: PushWorker) -> None:
    id = await start(served)
    await worker.until_pushed(id)
    await until_acknowledged(served, id)
    reply = await served.client.post(f"/api/v1/executions/{id}/cancel")
    assert reply.json()["status"] == "running"
    await worker.until(lambda: any(call.path == f"/cancel/{id}" for call in worker.calls))
    [call] = [call for call in worker.calls if call.path.startswith("/cancel/")]
    assert call.headers["x-worker-id"] == worker.id
    assert (await worker.say(id, "confirm-cancellation", {"worker_id": worker.id})).status_code == 200
    assert (await shown(served, id))["status"] == "cancelled"


async def test_a_cancel_of_what_the_worker_does_not_run_ends_at_once(served: Served, worker: PushWorker) -> None:
    worker.cancel_answer = 404
    id = await start(served)
    await worker.until_pushed(id)
    await until_acknowledged(served, id)
    await served.client.post(f"/api/v1/executions/{id}/cancel")
    await until_phase(served, id, Phase.CANCELLED)


async def test_what_wakes_is_brought_again(served: Served, worker: PushWorker) -> None:
    id = await start(served)
    await worker.until_pushed(id)
    body = {"step_key": "order", "wait_type": "event", "wait_until": None, "wait_topic": "orders", "expires_at": None}
    reply = await worker.say(id, "wait", body)
    assert (reply.status_code, reply.json()) == (200, {"execution_id": id})
    assert (await worker.say(id, "otel-span-id", {"otel_span_id": "abc"}, method="PUT")).status_code == 200
    event = {"topic": "orders", "events": [{"event_type": "made", "data": {"n": 1}}]}
    assert (await served.client.post("/api/v1/events/publish", json=event)).status_code == 200
    again = await worker.until_pushed(id, 2)
    assert again["otel_span_id"] == "abc"
    assert (await worker.step(id, "order")).json()["outputs"]["data"] == {"n": 1}


async def test_a_child_is_started_and_waited_for(served: Served, worker: PushWorker) -> None:
    id = await start(served, "parent", channel_context={"channel_id": "c", "source": {}})
    await worker.until_pushed(id)
    body = {
        "payload": 1,
        "parent_execution_id": id,
        "root_execution_id": id,
        "step_key": "c",
        "wait_for_subworkflow": True,
    }
    replies = [await served.client.post("/api/v1/workflows/kid/run", json=body) for _ in range(2)]
    child = replies[0].json()["execution_id"]
    assert replies[1].json() == replies[0].json()
    found = await worker.until_pushed(child)
    assert (found["root_execution_id"], found["root_workflow_id"], found["step_key"]) == (id, "parent", "c")
    assert found["channel_context"] == {"channel_id": "c", "source": {}}
    assert (await shown(served, id))["phase"] == "waiting"
    await worker.complete(child, 42)
    await worker.until_pushed(id, 2)
    step = (await worker.step(id, "c")).json()
    assert (step["outputs"], step["success"], step["error"]) == (42, True, None)


async def test_a_batch_is_one_wait(served: Served, worker: PushWorker) -> None:
    id = await start(served, "parent")
    await worker.until_pushed(id)
    body = {
        "workflows": [{"workflow_id": name, "payload": name} for name in ("a", "b", "c")],
        "parent_execution_id": id,
        "root_execution_id": id,
        "step_key": "all",
        "wait_for_subworkflow": True,
    }
    reply = await served.client.post("/api/v1/workflows/batch_run", json=body)
    children = [one["execution_id"] for one in reply.json()["executions"]]
    for child in children:
        assert (await worker.until_pushed(child))["parent_execution_id"] == id
    batch_ids = {(await shown(served, child))["batch_id"] for child in children}
    assert len(batch_ids) == 1 and None not in batch_ids
    for child in reversed(children):
        assert len(worker.pushed(id)) == 1
        await worker.complete(child, child)
    await worker.until_pushed(id, 2)
    step = (await worker.step(id, "all")).json()
    assert [one["result"] for one in step["outputs"]] == children


async def test_a_limit_of_one_never_shows_two(served: Served, worker: PushWorker) -> None:
    limits = {"deployment_id": "push", "queue_name": "narrow", "queue_concurrency_limit": 1, "payload": None}
    await asyncio.gather(*[served.client.post("/api/v1/workflows/w/run", json=limits) for _ in range(50)])
    for done in range(50):
        await worker.until(lambda done=done: len(worker.pushed()) >= done + 1)  # type: ignore[misc]  # bound now
        assert len(worker.pushed()) == done + 1
        await worker.complete(worker.pushed()[done]["execution_id"])


async def test_a_worker_may_ask_for_work(served: Served) -> None:
    async with push_worker(served, register=False) as worker:
        await worker.register(online=False)
        id = await start(served, payload=json.loads('{"n": 1}'))
        reply = await served.client.get(f"/api/v1/workers/{worker.id}/poll?max_workflows=5")
        [one] = reply.json()
        assert (one["execution_id"], one["payload"], one["root_execution_id"]) == (id, {"n": 1}, None)
        assert (await worker.complete(id)).status_code == 200
        assert worker.pushed() == []


async def test_a_worker_whose_call_that_it_is_online_failed_gets_work_after_its_next_heartbeat(served: Served) -> None:
    async with push_worker(served, register=False) as worker:
        await worker.register(online=False)
        id = await start(served)
        reply = await served.client.post(f"/api/v1/workers/{worker.id}/heartbeat")
        assert reply.json() == {"re_register": False}
        await worker.until_pushed(id)
        active = await served.client.get("/api/v1/workers/active")
        assert active.json() == {"worker_ids": [worker.id]}
        assert (await worker.complete(id)).status_code == 200


async def test_what_is_handed_back_each_time_is_not_brought_without_end(served: Served, worker: PushWorker) -> None:
    loop = asyncio.get_running_loop()
    brought: list[float] = []
    said: list[asyncio.Task[Any]] = []

    def take(body: Json) -> int:
        brought.append(loop.time())
        said.append(
            loop.create_task(worker.say(body["execution_id"], "confirm-cancellation", {"worker_id": worker.id}))
        )
        return 200

    worker.answer = take
    id = await start(served)
    await worker.until_pushed(id, 4)
    worker.answer = lambda body: 200
    _, second, third, fourth = brought[:4]
    assert third - second >= 0.5 and fourth - third >= 1.0
    await asyncio.gather(*said)
    assert "lost" not in await kinds(served, id)
