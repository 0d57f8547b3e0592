"""Each door checks answers against the question's schema. A refused answer leaves the question open."""

import json
import random
import time
from contextlib import suppress
from typing import Any, Final

import httpx2
import msgspec
import pytest
from msgspec import Raw
from tests.mcp.client import http_session
from tests.server.agents.test_approvals import asked, link_of, path_of
from tests.server.agents.test_approve_page import browser, check_page, fields_of
from tests.server.serving import Hand, Served

from perdure.store.base.input_checks import check_answer
from perdure.wire.base.errors import BadValue

Json = Any
NAMES: Final = ("way", "n" * 200, "שלום", "a.b", "0")
VALUES: Final[tuple[Json, ...]] = (
    None,
    True,
    0,
    -1,
    2**63,
    2**70,
    0.5,
    "",
    "banana",
    "שלום",
    "x" * 200,
    [],
    [None],
    {},
    {"way": 1},
)
DOORS: Final = ("submit", "resume", "act", "link", "mcp")


def drawn(chance: random.Random, depth: int = 3) -> Json:
    match chance.randrange(7 if depth else 4):
        case 0:
            return {"type": chance.choice(["boolean", "integer", "string"])}
        case 1:
            return {"enum": chance.sample(["land", "air", 7, True], 2)}
        case 2:
            return {"type": "string", "minLength": 2}
        case 3:
            return {"type": "integer", "minimum": 1, "maximum": 2**65}
        case 4:
            return {"anyOf": [drawn(chance, depth - 1), {"type": "null"}]}
        case 5:
            return {"type": "array", "items": drawn(chance, depth - 1)}
    names = chance.sample(NAMES, 2)
    return {"type": "object", "properties": {name: drawn(chance, depth - 1) for name in names}, "required": names[:1]}


def fitting(chance: random.Random, schema: Json) -> Json:
    match schema:
        case {"enum": values}:
            return chance.choice(values)
        case {"anyOf": [inner, _]}:
            return chance.choice([None, fitting(chance, inner)])
        case {"items": inner}:
            return [fitting(chance, inner) for _ in range(chance.randrange(3))]
        case {"properties": parts}:
            return {name: fitting(chance, part) for name, part in parts.items()}
        case {"type": "boolean"}:
            return chance.random() < 0.5
        case {"type": "integer"}:
            return chance.choice([1, 2**63, 2**65])
    return chance.choice(["שלום", "x" * 200])


def fits(schema: Json, value: Json) -> bool:
    """Whether a reader of the schema would accept the value."""
    match schema:
        case {"enum": values}:
            return any(type(value) is type(one) and value == one for one in values)
        case {"anyOf": [inner, _]}:
            return value is None or fits(inner, value)
        case {"items": inner}:
            return isinstance(value, list) and all(fits(inner, one) for one in value)
        case {"properties": parts, "required": required}:
            return (
                isinstance(value, dict)
                and all(name in value for name in required)
                and all(fits(part, value[name]) for name, part in parts.items() if name in value)
            )
        case {"type": "boolean"}:
            return isinstance(value, bool)
        case {"type": "integer"}:
            least, most = schema.get("minimum", -(10**30)), schema.get("maximum", 10**30)
            return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return isinstance(value, str) and len(value) >= schema.get("minLength", 0)


async def answered(served: Served, door: str, id: str, answer: Json) -> tuple[bool, str]:
    """Whether the door takes the answer, and the text of a refusal."""
    # The HTTP client's own JSON would write no integer in another way, but it refuses none of these values.
    body = {"value" if door == "act" else "data": answer}
    if door == "mcp":
        async with http_session(served.server.url, served.key) as session:
            result = await session.client.call_tool("answer_question", {"id": id, "step": "approve", "answer": answer})
        return not result.is_error, str(result.content)
    if door == "resume":
        reply = await served.client.post(f"/api/v1/executions/{id}/resume/approve", json=body)
    elif door == "act":
        act = {"action": "complete", "key": "approve", **body}
        reply = await served.client.post(f"/api/v1/executions/{id}/act", json=act)
    else:
        link = f"?link={await link_of(served, id)}" if door == "link" else ""
        headers = {"authorization": ""} if door == "link" else None
        reply = await served.client.post(f"{path_of(id)}/submit{link}", json=body, headers=headers)
    if reply.status_code == 422:
        said = reply.json()
        at = "value" if door == "act" else "data"
        assert said["error_type"] == "BAD_VALUE" and said["details"]["path"].startswith(at), said
        assert said["error"].startswith(said["details"]["path"]), said
    else:
        assert reply.status_code == 200, reply.text
    return reply.status_code == 200, reply.text


async def is_open(served: Served, id: str) -> bool:
    return bool((await served.client.get(path_of(id))).json()["state"] == "open")


@pytest.mark.parametrize("door", DOORS)
async def test_a_wrong_answer_is_refused_with_its_path_and_the_question_stays_open(
    served: Served, hand: Hand, door: str
) -> None:
    chance = random.Random(door)
    refused = 0
    for _ in range(6):
        schema = drawn(chance)
        id = await asked(served, hand, {"amount": 120}, answer_schema=schema)
        for value in [one for one in chance.sample(VALUES, 5) if not fits(schema, one)]:
            assert not (await answered(served, door, id, value))[0], (schema, value)
            assert await is_open(served, id), (schema, value)
            refused += 1
        right = fitting(chance, schema)
        assert fits(schema, right)
        took = await answered(served, door, id, right)
        assert took[0], (schema, right, took[1])
        item = await hand.claim()
        assert [row["value"] for row in item["rows"] if row["kind"] == "resume"] == [right]
        await hand.complete(item)
    assert refused > 10


async def test_answers_from_workers_are_checked_too(served: Served, hand: Hand) -> None:
    """Code that answers another execution's question gets the refusal as the outcome."""
    id = await asked(served, hand, answer_schema={"type": "boolean"})
    await served.start("w")
    item = await hand.claim()
    answer = {"type": "answer", "key": "send", "fingerprint": "f", "execution_id": id, "step_key": "approve"}
    reply = await hand.report(item, entries=[{**answer, "data": "banana"}])
    assert not reply.get("problem"), reply
    journal = (await served.client.get(f"/api/v1/executions/{item['id']}/steps")).json()
    assert "BAD_VALUE" in json.dumps(journal) and await is_open(served, id)


FORM: Final[Json] = {
    "_form": {
        "fields": [
            {"key": "approved", "type": "boolean", "required": True},
            {"key": "arguments", "type": "textarea", "required": True},
            {"key": "feedback", "type": "textarea"},
            {"key": "size", "type": "select", "options": ["S", {"value": 2, "label": "M"}]},
            {"key": "count", "type": "integer"},
        ]
    }
}


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        ({"approved": "banana", "arguments": ""}, "data.approved"),
        ({"approved": None, "arguments": ""}, "data.approved"),
        ({"arguments": "", "feedback": "no"}, "data.approved"),
        ({"approved": True}, "data.arguments"),
        ({"approved": True, "arguments": "{}", "size": "XL"}, "data.size"),
        ({"approved": False, "count": "many"}, "data.count"),
        ("banana", "data.arguments"),
        (None, "data.arguments"),
        ({"approved": True, "arguments": {"euros": 2}, "size": 2, "count": None, "other": 1}, None),
        ({"approved": True, "arguments": '{"euros": 2}', "feedback": None}, None),
        ({"approved": False}, None),
        (False, None),
    ],
)
def test_without_a_schema_the_form_decides(answer: Json, path: str | None) -> None:
    question = json.dumps(FORM).encode()
    if path is None:
        check_answer(question, None, json.dumps(answer).encode(), "data")
        return
    with pytest.raises(BadValue) as info:
        check_answer(question, None, json.dumps(answer).encode(), "data")
    assert info.value.details == {"path": path}


@pytest.mark.parametrize("data", [None, "ask", {"amount": 1}, {"_form": 7}, {"_form": {"fields": [{"key": 7}]}}])
@pytest.mark.parametrize("answer", VALUES)
def test_a_question_without_fields_takes_each_answer(data: Json, answer: Json) -> None:
    check_answer(json.dumps(data).encode(), None, msgspec.json.encode(Raw(json.dumps(answer).encode())), "data")


async def test_the_page_tells_a_refusal_beside_its_field_and_keeps_what_was_entered(served: Served, hand: Hand) -> None:
    code = {"type": "string", "pattern": "^[A-Z]{3}$"}
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "code": code}, "required": ["n", "code"]}
    id = await asked(served, hand, {"parcel": 7}, answer_schema=schema)
    async with browser(served) as client:
        way = f"/approve/{id}/approve?link={await link_of(served, id)}"
        page = await client.get(way)
        wrong = await client.post(way, data={**fields_of(page.text), "f0": "7", "f1": "שלום"})
        check_page(wrong)
        assert wrong.status_code == 422 and "does not match" in wrong.text and "value='שלום'" in wrong.text
        assert await is_open(served, id)
        done = await client.post(way, data={**fields_of(page.text), "f0": "7", "f1": "ABC"})
        assert "This has been answered" in done.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {"n": 7, "code": "ABC"}


async def test_an_answer_before_its_question_is_dropped_if_it_does_not_fit(served: Served, hand: Hand) -> None:
    for early, met in (("banana", False), (True, True)):
        id = await served.start("w")
        item = await hand.claim()
        path = f"/api/v1/executions/{id}/resume/approve"
        assert (await served.client.post(path, json={"data": early})).status_code == 200
        wait = {"type": "wait", "key": "approve", "fingerprint": "f", "data": None}
        reply = await hand.report(item, entries=[{**wait, "answer_schema": {"type": "boolean"}}])
        assert not reply.get("problem"), reply
        rows = (await served.client.get(f"/api/v1/executions/{id}/steps")).json()["steps"]
        assert [row["value"] for row in rows if row["kind"] == "resume"] == [early] * met
        if met:
            await hand.report(item, 2, seen=9, end={"type": "complete", "result": None})
            continue
        await hand.report(item, 2, seen=9, end={"type": "suspend", "waits": ["approve"], "timer": None})
        assert await is_open(served, id)


def doubling(levels: int) -> Json:
    """A schema that doubles the check's work at each level."""
    parts = {
        f"a{n}": {"anyOf": [{"properties": {"x": {"$ref": f"#/$defs/a{n + 1}"}}, "required": [name]} for name in "yz"]}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**parts, f"a{levels}": {"type": "string"}}}


NESTED: Final = "{" + '"x":{' * 40 + "}" * 41
ODD: Final[tuple[tuple[Json, str], ...]] = (
    ({"type": "nonsense"}, "1"),
    ({"type": "object", "properties": 7}, "{}"),
    ({"$ref": "http://127.0.0.1:9/schema"}, "1"),
    ({"$ref": "#/nowhere"}, "1"),
    ({"pattern": "(" * 50}, '"a"'),
    (7, "1"),
    ("text", "1"),
    ([], "1"),
    (None, "1"),
    ({"x-perdure-check": "none", "type": "boolean"}, "1"),
    ({"x-perdure-check": ["?"], "type": "boolean"}, "1"),
)


async def test_an_odd_schema_takes_each_answer(served: Served, hand: Hand) -> None:
    for schema, answer in ODD:
        id = await asked(served, hand, {"a": 1}, answer_schema=schema)
        reply = await served.client.post(f"{path_of(id)}/submit", content=f'{{"data":{answer}}}')
        assert reply.status_code == 200, (schema, reply.text)
        await hand.complete(await hand.claim())


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (doubling(40), NESTED),
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 100_000 + "b")),
        ({"type": "array", "items": {"type": "integer"}}, json.dumps(["x"] * 40_000)),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "1"),
        (
            {"items": {"allOf": [{"$ref": "#/$defs/a"}] * 400}, "$defs": {"a": {"allOf": [{"minimum": 1}] * 400}}},
            json.dumps([1] * 40_000),
        ),
    ],
    ids=["doubling", "pattern", "long", "self", "wide"],
)
def test_a_check_has_a_bounded_cost(schema: Json, answer: str) -> None:
    begun = time.process_time()
    with suppress(BadValue):
        check_answer(None, json.dumps(schema).encode(), answer.encode(), "data")
    assert time.process_time() - begun < 20, "a run without bounds takes years"


async def test_a_reply_of_the_page_is_never_an_error(served: Served, hand: Hand) -> None:
    for schema, _ in ODD:
        id = await asked(served, hand, {"a": 1}, answer_schema=schema)
        page: httpx2.Response = await served.client.get(f"/approve/{id}/approve?link={await link_of(served, id)}")
        assert page.status_code == 200, (schema, page.text)
        await served.client.post(f"{path_of(id)}/submit", json={"data": 1})
        await hand.complete(await hand.claim())
