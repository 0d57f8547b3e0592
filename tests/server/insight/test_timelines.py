"""The timeline of an execution over HTTP."""

from tests.server.serving import Hand, Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.base.access import Role
from perdure.wire.insight.timelines import SpanKind, SpanState


async def test_readers_see_the_spans_of_an_execution(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    step = {"type": "step", "key": "pay", "name": "pay", "fingerprint": None, "ok": True, "value": 1}
    await hand.report(item, entries=[{**step, "started_at_us": 1_000_000}])
    path = f"/api/v1/executions/{id}/timeline"
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    found = (await served.client.get(path, headers=reader)).json()
    (span,) = found["spans"]
    assert (span["key"], span["kind"], span["state"], span["seqs"]) == ("pay", "step", "completed", [2])
    assert "wait" not in span and "runs" not in span
    (claim,) = found["claims"]
    assert (claim["worker"], claim["attempt"]) == (hand.id, 1)
    assert "to" not in claim
    assert (found["last_seq"], found["has_more"]) == (2, False)
    first = (await served.client.get(f"{path}?limit=1")).json()
    assert (first["spans"], first["last_seq"], first["has_more"]) == ([], 1, True)
    assert (await served.client.get(f"{path}?after=1")).json()["spans"] == found["spans"]
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        one = await client.timeline(id)
        assert [(span.kind, span.state) for span in one.spans] == [(SpanKind.STEP, SpanState.COMPLETED)]
        assert one.claims[0].from_us is not None and one.spans[0].tries[0].n == 1
    _, other_project = await served.other_project()
    assert (await served.client.get(path, headers=other_project)).status_code == 404
    for wrong in ("limit=0", "limit=10001", "after=-1"):
        assert (await served.client.get(f"{path}?{wrong}")).status_code == 400


async def test_readers_see_what_an_execution_spent_on_models(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    said = {"kind": "response", "model_name": "m", "parts": [], "usage": {"input_tokens": 3, "output_tokens": 4}}
    step = {"type": "step", "key": "model.request", "name": "model.request", "fingerprint": None, "ok": True}
    await hand.report(item, entries=[{**step, "value": said, "started_at_us": 1_000_000}])
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    found = (await served.client.get(f"/api/v1/executions/{id}/usage", headers=reader)).json()
    assert (found["total"]["calls"], found["total"]["unpriced"], found["calls"][0]["usd"]) == (1, 1, None)
    assert found["models"][0]["model"] == "m" and found["exact"]
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        assert (await client.usage(id)).total.output_tokens == 4
        timeline = await client.timeline(id)
        assert (timeline.spans[0].tokens, timeline.spans[0].usd) == (7, None)
