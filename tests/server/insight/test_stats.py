"""Numbers over time over HTTP: the overview, workflows and queues."""

from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.serving import Hand, Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.store.verbs.insight import ended
from perdure.store.verbs.runs import claims
from perdure.wire.insight.attention import pattern_of, words_of
from perdure.wire.insight.matches import CountReply
from perdure.wire.insight.stats import class_of, percentile_ms
from perdure.wire.runs.executions import ListFilters

Json = Any


@pytest.fixture
async def served(served: Served) -> Served:
    """A counting server, after its loop's first round."""

    async def counts() -> bool:
        return await served.engine.store.read(ended.folds()) is not None

    await until(counts, 60, "the server counts ends")
    return served


async def _get(served: Served, path: str, **params: str) -> Json:
    reply = await served.client.get(f"/api/v1{path}", params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def _failed(served: Served, hand: Hand, error: str) -> str:
    id = await served.start()
    await hand.fail(await hand.claim(), error)
    return id


async def test_an_overview_counts_what_ended_and_what_is_open(served: Served, hand: Hand) -> None:
    for _ in range(3):
        await served.start()
    await hand.complete(await hand.claim())
    found = await _get(served, "/overview", range="1h")
    while found["counted_from"] is not None:  # a loop has yet to look for older ends
        found = await _get(served, "/overview", range="1h")
    assert found["ended_total"] == {"completed": 1, "failed": 0, "cancelled": 0}
    assert (len(found["ended"]), found["step_seconds"]) == (60, 60)
    assert sum(bucket["completed"] for bucket in found["ended"][-2:]) == 1
    assert {phase: n for phase, n in found["open"].items() if n} == {"queued": 2}
    assert found["queued_oldest_at"] is not None
    assert (found["people"]["waiting"], found["workers"], found["attention"]) == (0, {"online": 1, "lapsed": 0}, [])
    [workflow] = found["workflows"]
    assert (workflow["workflow_id"], workflow["ended"], workflow["open"]) == ("w", 1, 2)
    assert (len(workflow["ended_by_bucket"]), sum(workflow["ended_by_bucket"])) == (60, 1)
    assert workflow["p95_ms"] is not None
    reply = await served.client.get("/api/v1/overview", params={"range": "1y"})
    assert reply.json()["error"] == "query.range: Invalid enum value '1y'; it takes 1h, 6h, 24h, 7d, 30d"


async def test_failures_are_one_entry_per_error(served: Served, hand: Hand) -> None:
    ids = [await _failed(served, hand, f"TimeoutError: connect to db-{n} took {n}.5 s") for n in range(3)]
    await _failed(served, hand, "boom")
    first, second = (await _get(served, "/overview"))["attention"]
    assert (first["kind"], first["count"], first["exact"]) == ("failures", 3, True)
    assert first["sentence"] == "3 executions of w failed: TimeoutError: connect to db-… took … s."
    assert first["sample_ids"] == ids[::-1]
    assert second["sentence"] == "1 execution of w failed: boom."
    page = (await served.client.get("/api/v1/executions", params=first["filter"])).json()
    assert {one["id"] for one in page["executions"]} == set(ids)
    await served.client.post(f"/api/v1/executions/{ids[0]}/retry", json={})
    assert [one["count"] for one in (await _get(served, "/overview"))["attention"]] == [2, 1], "a retry took its place"


async def test_a_pause_and_a_blocked_execution_need_attention(served: Served, hand: Hand) -> None:
    id = await served.start()
    await hand.report(
        await hand.claim(), end={"type": "block", "error": "the code differs", "detail": {"type": "Diverged"}}
    )
    await served.client.post("/api/v1/queues/w/pause")
    await served.start()
    entries: list[Json] = []

    async def both() -> bool:
        entries[:] = (await _get(served, "/overview"))["attention"]
        return len(entries) == 2

    while not await both():
        pass
    blocked, paused = entries
    assert (blocked["kind"], blocked["sample_ids"]) == ("blocked", [id])
    assert (paused["kind"], paused["count"], paused["details"]["name"]) == ("paused", 1, "w")
    assert paused["sentence"].endswith("paused queue 'w', which holds 1 execution.")
    assert {phase: n for phase, n in (await _get(served, "/overview"))["open"].items() if n} == {
        "paused": 1,
        "blocked": 1,
    }


async def test_a_workflow_has_numbers_of_its_own(served: Served, hand: Hand) -> None:
    await _failed(served, hand, "boom 1")
    await served.start()
    await hand.complete(await hand.claim())
    found = await _get(served, "/workflows/w/stats", range="24h")
    assert (found["completed"], found["failed"], found["cancelled"]) == (1, 1, 0)
    assert (len(found["buckets"]), found["open_exact"], found["steps"]["sampled"]) == (96, True, 1)
    [deployment] = found["deployments"]
    assert (deployment["completed"], deployment["failed"]) == (1, 1)
    [group] = found["errors"]
    assert (group["class"], group["message"], group["count"]) == (None, "boom …", 1)
    unknown = await _get(served, "/workflows/none/stats")
    assert (unknown["completed"], unknown["p95_ms"], unknown["deployments"]) == (0, None, [])


async def test_what_broke_since_the_deploy(served: Served, hand: Hand) -> None:
    assert (await _get(served, "/overview"))["since_deploy"] is None, "nothing came before"
    for error in ("boom 1", "known 1"):
        await _failed(served, hand, error)
    retried = await _failed(served, hand, "old 1")
    await served.client.post(f"/api/v1/executions/{retried}/retry", json={})
    await served.start()
    await hand.complete(await hand.claim())
    old = hand.deployment_id
    hand.deployment_id = "next"
    await hand.register()
    await served.start()
    await hand.complete(await hand.claim())
    known = await _failed(served, hand, "known 2")
    first = await _failed(served, hand, "new 1")
    last = await _failed(served, hand, "new 2")
    await _failed(served, hand, "old 2")
    found = await _get(served, "/deployments/next/stats")
    assert (found["completed"], found["failed"], found["cancelled"]) == (1, 4, 0)
    assert (found["before"]["deployment_id"], found["before"]["completed"], found["before"]["failed"]) == (old, 1, 3)
    assert (found["can_roll_back"], found["workers_lost"]) == (True, 0)
    groups = {one["message"]: one for one in found["errors"]}
    assert {message: one["is_new"] for message, one in groups.items()} == {
        "new …": True,
        "known …": False,
        "old …": False,
    }
    assert found["errors"][0]["message"] == "new …", "what is new comes first"
    assert (groups["new …"]["first_id"], groups["new …"]["sample_ids"]) == (first, [last, first])
    assert groups["known …"]["first_id"] == known
    shown = (await _get(served, "/overview", range="1h"))["since_deploy"]
    assert {**shown, "as_of": found["as_of"]} == found
    before = await _get(served, f"/deployments/{old}/stats")
    assert (before["before"], before["can_roll_back"], before["failed"]) == (None, False, 3)
    assert [one["is_new"] for one in before["errors"]] == [None, None]
    reply = await served.client.get("/api/v1/deployments/none/stats")
    assert (reply.status_code, reply.json()["error"].split(" does")[0]) == (404, "Deployment 'none'")


async def test_a_roll_back_is_a_deploy_too(served: Served, hand: Hand) -> None:
    old = hand.deployment_id
    hand.deployment_id = "next"
    await hand.register()
    assert (await served.client.post(f"/api/v1/deployments/{old}/use")).status_code == 200
    found = await _get(served, f"/deployments/{old}/stats")
    assert (found["before"]["deployment_id"], found["can_roll_back"]) == ("next", True)
    listed = {one["id"]: one for one in (await _get(served, "/deployments"))["deployments"]}
    assert found["used_from"] == listed["next"]["superseded_at"]


async def test_lost_workers_count_for_their_deployment(served: Served, hand: Hand) -> None:
    await served.engine.store.write(
        claims.drain(project_id=served.project_id, worker_id=hand.id, now_us=served.engine.clock.now_us(), died=True)
    )
    assert (await _get(served, f"/deployments/{hand.deployment_id}/stats"))["workers_lost"] == 1


async def test_all_workflows_come_in_pages(served: Served) -> None:
    for name in ("a", "b", "c"):
        await served.start(name)
    first = await _get(served, "/stats/workflows", limit="2")
    assert [one["workflow_id"] for one in first["workflows"]] == ["a", "b"]
    last = await _get(served, "/stats/workflows", cursor=first["next_cursor"])
    assert ([one["workflow_id"] for one in last["workflows"]], last["next_cursor"]) == (["c"], None)


async def test_a_queue_has_numbers_of_its_own(served: Served, hand: Hand) -> None:
    await served.start(queue_name="q")
    await hand.complete(await hand.claim())
    await served.start()
    await hand.complete(await hand.claim())
    for name in ("q", "w"):
        found = await _get(served, f"/queues/{name}/stats")
        assert (sum(bucket["completed"] for bucket in found["ended"]), found["keys"]) == (1, [])


@pytest.mark.parametrize("took_ms", [0, 1, 7, 640, 90_000, 86_400_000])
def test_a_percentile_is_close_to_the_durations(took_ms: int) -> None:
    found = percentile_ms({class_of(took_ms * 1_000): 5}, 0.5)
    assert found is not None
    assert abs(found - took_ms) <= max(1, took_ms * 0.09)
    assert percentile_ms({}, 0.5) is None


def test_patterns_leave_out_numbers_and_ids() -> None:
    pattern = pattern_of("perdure.Timeout: order 0190a5f2-7c1e-7b3a-9d55-0242ac120002 waited 1,200 ms for 0xdeadbeef")
    assert str(pattern) == "perdure.Timeout: order … waited … ms for …"
    assert words_of(pattern) == "perdure Timeout order waited ms for"
    assert words_of(pattern_of("17")) is None


async def test_the_client_asks_for_numbers(served: Served, hand: Hand) -> None:
    await _failed(served, hand, "boom 7")
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        overview = await client.stats.overview("1h")
        assert [one.sentence for one in overview.attention] == ["1 execution of w failed: boom …."]
        failed = ListFilters(status=["failed"])
        assert await client.stats.count(failed) == CountReply(1, True)
        assert [group.message for group in (await client.stats.errors(failed)).groups] == ["boom …"]
        assert [one.value for one in (await client.stats.facets("phase")).values] == ["failed"]
        assert [bucket.phases for bucket in (await client.stats.histogram(over="ended")).buckets] == [{"failed": 1}]
        assert (await client.stats.workflow("w")).failed == 1
        assert [one.workflow_id for one in (await client.stats.workflows()).workflows] == ["w"]
        assert sum(bucket.failed for bucket in (await client.stats.queue("w")).ended) == 1
        assert (await client.queues.next("w")).executions == []
        with pytest.raises(ValueError, match="1y"):
            await client.stats.overview("1y")
