"""What would be a broken promise to whoever sends a request twice is seen as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.faults.duplicates import Reply, Twice, judge, stale

from perdure.wire.base.errors import NotCancellable

Json = Any
LEASE_LOST = {"error_type": "LEASE_LOST"}
ITEM = {"execution_id": "e", "attempt": 1, "number": 1, "entries": [{"type": "step"}]}
TAKEN = {"accepted": [2], "at_us": 7, "rows": [{"seq": 3}]}


def twice(path: str, first: Json, again: Json, *, body: Json = None, late: bool = True) -> Twice:
    """Each answer is a body (with 200), or a status and a body."""
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n{json.dumps(body)}".encode()
    return Twice(request, _reply(first), _reply(again), late)


def _reply(said: Json) -> Reply:
    status, body = said if isinstance(said, tuple) else (200, said)
    return Reply(status, json.dumps(body).encode())


def reported(first: Json, again: Json, *, late: bool = True, **fields: Json) -> Twice:
    body = {"worker_id": "w", "items": [{**ITEM, **fields}]}
    return twice("/worker/v1/report", {"items": [first]}, {"items": [again]}, body=body, late=late)


START, RESUME, CANCEL = "/api/v1/executions", "/api/v1/executions/e/resume/k%2F1", "/api/v1/executions/e/cancel"
CLAIM, BEAT = "/worker/v1/claim", "/worker/v1/beat"
A, B = ({"id": id, "attempt": 1} for id in "ab")


@pytest.mark.parametrize(
    "one",
    [
        twice(START, {"items": [1]}, {"items": [1]}),
        twice(START, (400, {}), {"items": [1]}),  # refusals are not kept
        twice(RESUME, {"step_key": "k"}, {"step_key": "k"}),
        twice(CANCEL, {"execution_id": "e", "status": "running"}, {"execution_id": "e", "status": "cancelled"}),
        twice(CANCEL, {"execution_id": "e"}, (400, {"error_type": NotCancellable.code})),
        twice(CLAIM, {"items": [A, B]}, {"items": [A]}),
        twice(CLAIM, {"items": [A]}, (409, LEASE_LOST)),
        twice(CLAIM, {"items": []}, {"items": [B]}),
        twice(BEAT, {"lost": False}, {"lost": True}),
        reported(TAKEN, TAKEN),
        reported(TAKEN, {**TAKEN, "rows": [{"seq": 3}, {"seq": 4}]}),
        reported(TAKEN, {"lost": True}),
        reported({"ended": True}, {"ended": True}, end={"type": "complete"}),
        reported({**TAKEN, "rows": [{"seq": 3}, {"seq": 4}]}, TAKEN, late=False),
    ],
)
def test_a_kept_promise(one: Twice) -> None:
    name, wrong = judge(one)
    assert name is not None and wrong is None


@pytest.mark.parametrize(
    "one",
    [
        twice(START, {"items": [1]}, {"items": [2]}),
        twice(START, {"items": [1]}, (409, {})),
        twice("/api/v1/events/publish", {"sequence_ids": [1]}, {"sequence_ids": [2]}),
        twice(RESUME, {"step_key": "k"}, (409, {"error_type": "CONFLICT"})),
        twice(CANCEL, {"execution_id": "e"}, (404, {})),
        twice(CLAIM, {"items": [A]}, {"items": [A, B]}),
        twice(CLAIM, {"items": [A]}, {"items": [{**A, "attempt": 2}]}),
        twice(CLAIM, (409, LEASE_LOST), {"items": []}),
        twice(BEAT, {"lost": True}, {"lost": False}),
        reported(TAKEN, {**TAKEN, "accepted": [4]}),
        reported(TAKEN, {**TAKEN, "at_us": 8}),
        reported(TAKEN, {**TAKEN, "rows": []}),
        reported(TAKEN, {**TAKEN, "rows": [{"seq": 3, "key": "other"}]}),
        reported(TAKEN, {"problem": {"code": "X"}}),
        reported(TAKEN, {"ended": True}),
        reported({"lost": True}, TAKEN),
        reported({"ended": True}, TAKEN, end={"type": "complete"}),
    ],
)
def test_a_broken_promise(one: Twice) -> None:
    assert judge(one)[1] is not None


def test_nothing_is_promised_where_nobody_is_there_or_somebody_only_looks() -> None:
    for one in (
        twice(START, {}, (503, {})),
        twice(START, (500, {}), {}),
        twice("/api/v1/executions/wait", {}, {"a": 1}),
    ):
        assert judge(one) == (None, None)


def test_what_a_copy_lost_is_to_be_looked_at() -> None:
    assert stale(reported(TAKEN, {"lost": True})) == [("e", 1, "w")]
    assert stale(reported({"lost": True}, {"lost": True})) == []
