"""JSON at the edges (catalogue 71 and 72): kept byte for byte, or refused with the field; never an error of ours."""

import json
import time
from typing import Any

import pytest
from tests.server.serving import Hand, Served, serving

KEPT = [
    "null",
    "0",
    "-0.0",
    "1E400".replace("400", "300"),
    "9007199254740993",
    "9223372036854775808",
    "-170141183460469231731687303715884105728",
    "1" * 4_000,
    "0." + "1" * 5_000,
    "1e-400",
    '""',
    '"\\u0000"',
    '"\\ud83d\\ude00"',
    '"😀"',
    '{"a":1,"a":2}',
    '{"":{"\\u0000":[]}}',
    "[ 1 ,\t2\n,\r\n3 ]",
    '{"b":1,"a":1.0,"c":1.50}',
    "[" * 64 + "]" * 64,
    '{"a":' * 64 + "1" + "}" * 64,
]
REFUSED = [
    "NaN",
    "-Infinity",
    "Infinity",
    "1e999",
    "-1e999",
    "1" * 5_000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    "[" * 65 + "]" * 65,
    '{"a":' * 65 + "1" + "}" * 65,
    '"a\nb"',
    '"\t"',
    "01",
    "1.",
    ".5",
    "+1",
    "0x1",
    "'a'",
    "{a:1}",
    "[1,]",
    '{"a":1,}',
    "tru",
    "nul",
    "// 1",
    "",
    " ",
]
# `engine.claims.check_report` does not look at answers, waits, progress and the text of errors yet.
BYTES = [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\xef\xbb\xbf1", b"1\x00", b'"\x00"']


def ids(text: str | bytes) -> str:
    return repr(text[:24])


async def _run(served: Served, payload: bytes) -> Any:
    return await served.client.post(
        "/api/v1/workflows/w/run", content=b'{"accept_early": true, "payload": ' + payload + b"}"
    )


@pytest.mark.parametrize("text", KEPT, ids=ids)
async def test_kept_as_it_is(served: Served, hand: Hand, text: str) -> None:
    reply = await _run(served, text.encode())
    assert reply.status_code == 200, reply.text
    id = reply.json()["execution_id"]
    expected = text.strip().encode()

    claimed = await served.client.post("/worker/v1/claim", json=hand.claiming(), headers={"perdure-protocol": "1"})
    assert b'"payload":' + expected in claimed.content
    attempt = b'{"execution_id":"%s","attempt":1,"number":%d,"seen":1,' % (id.encode(), 1)
    step = b'{"type":"step","key":"s","name":"s","fingerprint":null,"ok":true,"started_at_us":1,"value":%s}' % expected
    end = b'{"type":"complete","result":%s}' % expected
    report = b'{"worker_id":"%s","epoch":"%s","items":[%s"entries":[%s],"end":%s}]}' % (
        hand.id.encode(),
        hand.epoch.encode(),
        attempt,
        step,
        end,
    )
    reported = await served.client.post("/worker/v1/report", content=report, headers={"perdure-protocol": "1"})
    assert reported.json()["items"][0].get("ended") is True, reported.text
    got = await served.client.get(f"/api/v1/executions/{id}")
    assert b'"payload":' + expected + b"," in got.content
    assert b'"result":' + expected + b"," in got.content
    steps = await served.client.get(f"/api/v1/executions/{id}/steps")
    assert b'"value":' + expected in steps.content

    body = b'{"topic":"t","events":[{"data":' + expected + b"}]}"
    assert (await served.client.post("/api/v1/events/publish", content=body)).status_code == 200
    assert b'"data":' + expected in (await served.client.get("/api/v1/events?topic=t")).content


async def test_refused_everywhere(served: Served, hand: Hand) -> None:
    for text in [*(text.encode() for text in REFUSED), *BYTES]:
        replies = [
            await _run(served, text),
            await served.client.post(
                "/api/v1/workflows/batch_run", content=b'{"workflows":[{"workflow_id":"w","payload":' + text + b"}]}"
            ),
            await served.client.post(
                "/api/v1/events/publish", content=b'{"topic":"t","events":[{"data":' + text + b"}]}"
            ),
        ]
        id = await served.start()
        replies.append(await served.client.post(f"/api/v1/executions/{id}/resume/s", content=b'{"data":' + text + b"}"))
        for reply in replies:
            assert reply.status_code in (400, 422), (text, reply.text)
            assert reply.json()["error"]
        item = b'{"items":[{"workflow_id":"w","payload":' + text + b"}]}"
        reply = await served.client.post("/api/v1/executions", content=item)
        if reply.status_code == 200:
            assert reply.json()["items"][0]["problem"]["error_type"] == "BAD_VALUE", text
        else:
            assert reply.status_code in (400, 422), text
        assert (await served.client.get("/api/v1/events?topic=t")).json()["events"] == [], text


UNREADABLE = ["1e999", "[" * 65 + "]" * 65, "1" * 5_000]


@pytest.mark.parametrize("text", ["NaN", '"\\ud800"', *UNREADABLE], ids=ids)
async def test_a_worker_cannot_report_what_nobody_can_read(served: Served, hand: Hand, text: str) -> None:
    await served.start()
    item = await hand.claim()
    values = {
        "entries": [
            '{"type":"step","key":"s","name":"s","fingerprint":null,"ok":true,"started_at_us":1,"value":VALUE}',
            '{"type":"publish","key":"p","fingerprint":null,"topic":"t","events":[{"data":VALUE}]}',
            '{"type":"child","key":"c","fingerprint":null,"item":{"workflow_id":"w","payload":VALUE}}',
            '{"type":"answer","key":"a","fingerprint":null,"execution_id":"ID","step_key":"s","data":VALUE}',
            '{"type":"wait","key":"w","fingerprint":null,"data":VALUE}',
            '{"type":"wait","key":"w","fingerprint":null,"topic":"t","match":{"a":VALUE}}',
        ],
        "end": ['{"type":"complete","result":VALUE}', '{"type":"fail","error":"x","detail":VALUE}'],
        "progress": ["VALUE"],
    }
    number = 0
    for field, forms in values.items():
        for form in forms:
            number += 1
            part = form.replace("VALUE", text).replace("ID", item["id"])
            body = (
                f'{{"worker_id":"{hand.id}","epoch":"{hand.epoch}","items":[{{"execution_id":"{item["id"]}",'
                f'"attempt":1,"number":{number},"seen":1,"{field}":{f"[{part}]" if field == "entries" else part}}}]}}'
            )
            reply = await served.client.post(
                "/worker/v1/report", content=body.encode(), headers={"perdure-protocol": "1"}
            )
            assert reply.status_code < 500, (form, reply.text)
            if reply.status_code == 200:
                answer = reply.json()["items"][0]
                assert answer["problem"]["error_type"] in ("BAD_VALUE", "BAD_REQUEST", "CONFLICT"), (form, answer)
    found = await served.client.get(f"/api/v1/executions/{item['id']}")
    assert found.json()["status"] == "running"


NAMES = ["\0", "a\0b", "a\nb", "\x7f", "\u2028", "\u202e", "", "x" * 3_000]


async def test_names_show_as_what_they_are(served: Served, hand: Hand) -> None:
    for name in NAMES:
        for field in ("workflow_id", "queue_name", "concurrency_key", "session_id", "user_id", "key", "deployment_id"):
            body = {"workflows": [{"workflow_id": "w", "payload": 1, "accept_early": True}]}
            target: Any = body if field in ("session_id", "user_id", "deployment_id") else body["workflows"][0]
            target[field] = name
            reply = await served.client.post("/api/v1/workflows/batch_run", json=body)
            if name == "" and field in ("session_id", "user_id"):
                continue  # the same as none
            assert reply.status_code == 422, (name, field, reply.text)
            assert field in reply.json()["error"]
        tagged = {"payload": 1, "accept_early": True, "tags": {name: "x"}}
        assert (await served.client.post("/api/v1/workflows/w/run", json=tagged)).status_code == 422, name
        events = [{"data": 1, "event_type": name}]
        assert (
            await served.client.post("/api/v1/events/publish", json={"topic": "t", "events": events})
        ).status_code == 422


async def test_names_may_be_of_any_script(served: Served) -> None:
    name = "Größe/日本語 😀 %2F"
    started = await served.client.post(
        "/api/v1/workflows/Gr%C3%B6%C3%9Fe%2F%E6%97%A5%E6%9C%AC%E8%AA%9E%20%F0%9F%98%80%20%252F/run",
        json={"payload": 1, "accept_early": True, "session_id": name, "tags": {name: name}, "key": name},
    )
    found = (await served.client.get(f"/api/v1/executions/{started.json()['execution_id']}")).json()
    assert found["workflow_id"] == found["session_id"] == found["key"] == name
    assert found["tags"] == {name: name}
    await served.client.post("/api/v1/events/publish", json={"topic": name, "events": [{"data": 1}]})
    events = (await served.client.get("/api/v1/events", params={"topic": name})).json()["events"]
    assert events[0]["topic"] == name


async def test_an_errors_text_is_recorded_whatever_it_holds(served: Served, hand: Hand) -> None:
    await served.start()
    item = await hand.claim()
    await hand.fail(item, "a\0b\x1b[31m\u202e" + "x" * 20_000)
    found = (await served.client.get(f"/api/v1/executions/{item['id']}")).json()
    assert found["status"] == "failed" and found["error"].startswith("a")
    assert len(found["error"].encode()) <= 16 << 10


async def test_a_large_value_is_read_about_as_fast_as_any_json(no_collector: None) -> None:
    """The server reads a value in one go while others wait, so the time must be near that of any JSON."""
    body = b'{"accept_early": true, "payload": [' + b"[]," * 2_000_000 + b"[]]}"
    begin = time.thread_time()
    json.loads(body)
    plain = time.thread_time() - begin
    async with serving(":memory:") as served:  # how a value is checked has nothing to do with where it is kept
        begin = time.thread_time()
        reply = await served.client.post("/api/v1/workflows/w/run", content=body)
        taken = time.thread_time() - begin
    assert reply.status_code == 200
    assert taken < 5 * plain, (taken, plain)
