"""Counts of the executions that filters find, over HTTP."""

from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.engine.insight import matches
from perdure.store.verbs.insight import matches as matches_verbs
from perdure.wire.insight.matches import HistogramTime, Match, histogram

Json = Any
SECOND = 1_000_000


async def _get(served: Served, path: str, **params: str) -> Json:
    reply = await served.client.get(f"/api/v1/executions/{path}", params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.fixture
async def ended(served: Served, hand: Hand) -> list[str]:
    """Three failed executions, two completed and a queued."""
    ids: list[str] = []
    for number in range(3):
        ids.append(await served.start(tags={"shop": str(number % 2)}, user_id="ann"))
        await hand.fail(await hand.claim(), f"TimeoutError: db-{number} is away" if number else "it broke")
    for queue in ("w", "mail"):
        ids.append(await served.start(queue_name=queue))
        await hand.complete(await hand.claim())
    ids.append(await served.start())
    return ids


async def test_executions_are_counted_by_any_filter(served: Served, ended: list[str]) -> None:
    assert await _get(served, "count") == {"count": 6, "exact": True}
    for filters, count in (
        ({"phase": "failed"}, 3),
        ({"status": "completed,pending"}, 3),
        ({"queue_name": "mail"}, 1),
        ({"tag": "shop=0"}, 2),
        ({"error": "timeouterror"}, 2),
        ({"workflow_id": "none"}, 0),
    ):
        assert await _get(served, "count", **filters) == {"count": count, "exact": True}, filters
    refused = await served.client.get("/api/v1/executions/count", params={"phase": "away"})
    assert (refused.status_code, "completed" in refused.json()["error"]) == (400, True)


async def test_a_count_says_when_it_is_not_exact(
    served: Served, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "MATCHES_MAX", 4)
    monkeypatch.setattr(matches_verbs, "IDS_MAX", 2)
    assert await _get(served, "count") == {"count": 4, "exact": False}


async def test_a_histogram_has_phases(served: Served, ended: list[str]) -> None:
    created = await _get(served, "histogram", step="3600")
    assert (created["step_seconds"], created["exact"]) == (3_600, True)
    phases = [bucket["phases"] for bucket in created["buckets"]]
    assert [sum(each.get(phase, 0) for each in phases) for phase in ("failed", "completed", "queued")] == [3, 2, 1]
    by_end = await _get(served, "histogram", over="ended", step="3600")
    assert sum(sum(bucket["phases"].values()) for bucket in by_end["buckets"]) == 5
    empty = await _get(served, "histogram", workflow_id="none")
    assert (empty["buckets"], empty["from"], empty["to"]) == ([], None, None)


async def test_errors_are_grouped(served: Served, ended: list[str]) -> None:
    found = await _get(served, "errors")
    assert found["exact"]
    first, second = found["groups"]
    assert (first["class"], first["message"], first["count"]) == ("TimeoutError", "db-… is away", 2)
    assert first["sample_ids"] == [ended[2], ended[1]]
    assert (second["class"], second["message"], second["deployment_id"]) == (None, "it broke", "default")
    assert (await _get(served, "errors", phase="completed"))["groups"] == []
    assert (await _get(served, "count", **first["filter"]))["count"] == 2


@pytest.mark.parametrize(
    ("of", "filters", "values"),
    [
        ("phase", {"phase": "queued"}, {"failed": 3, "completed": 2, "queued": 1}),
        ("queue_name", {"status": "completed"}, {"w": 1, "mail": 1}),
        ("user_id", {}, {"ann": 3}),
        ("tag", {"tag": "shop=1"}, {"shop=0": 2, "shop=1": 1}),
        ("error_class", {"error": "broke"}, {"TimeoutError": 2}),
        ("workflow_id", {"workflow_id": "none", "phase": "failed"}, {"w": 3}),
    ],
)
async def test_facets_leave_out_their_own_filter(
    served: Served, ended: list[str], of: str, filters: dict[str, str], values: dict[str, int]
) -> None:
    found = await _get(served, "facets", of=of, **filters)
    assert (found["of"], found["exact"]) == (of, True)
    assert {one["value"]: one["count"] for one in found["values"]} == values


def _match(at_us: int) -> Match:
    return Match("id", "w", None, "queued", "w", None, None, None, at_us, None)


@pytest.mark.parametrize(
    ("seconds", "step", "expected"),
    [(59, None, 1), (3_600, None, 60), (86_400 * 30, None, 86_400), (100, 7, 7), (86_400, 5, 300), (0, None, 1)],
)
def test_a_histogram_takes_a_step_that_bounds_its_buckets(seconds: int, step: int | None, expected: int) -> None:
    found = histogram([_match(0), _match(seconds * SECOND)], HistogramTime.CREATED, step, exact=True)
    assert found.step_seconds == expected
    assert sum(bucket.phases["queued"] for bucket in found.buckets) == 2
