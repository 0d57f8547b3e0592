"""An answer's schema as fields of the approval page, and the submitted values."""

import json
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct
from tests.server.agents.test_approvals import asked, path_of
from tests.server.agents.test_approve_page import FIELDS, browser, check_page, fields_of
from tests.server.serving import Hand, Served

from perdure.sdk.payloads.schemas import schema_of
from perdure.sdk.payloads.values import decode
from perdure.wire.agents.answer_forms import Form, form_of, read_answer

Json = Any


class Way(Enum):
    LAND = "land"
    AIR = "air"


class Shipping(Struct):
    """How a parcel goes."""

    way: Way
    boxes: Annotated[int, Meta(ge=1, le=9)]
    insured: bool
    note: str = ""
    value: float | None = None
    marks: list[Literal["fragile", "heavy"]] = []


def expecting(type_: Any) -> Form:
    return form_of(b'{"n": 1}', schema_of(type_))


def test_a_schema_becomes_fields_and_they_become_what_the_code_reads() -> None:
    form = expecting(Shipping)
    assert form.fields is not None and not form.decides
    kinds = ["select", "integer", "boolean", "text", "number", "multiselect"]
    assert [(field.key, field.kind) for field in form.fields] == list(
        zip(Shipping.__struct_fields__, kinds, strict=True)
    )
    sent = {"f0": ["0"], "f1": ["3"], "f2": ["false"], "f4": ["2.5"], "f5": ["0", "1"]}
    answer, errors = read_answer(form, sent)
    assert errors == {} and answer is not None
    found = decode(answer, Shipping, where="answer")
    assert found == Shipping(Way.AIR, 3, insured=False, value=2.5, marks=["fragile", "heavy"])
    needed = read_answer(form, {})[1]
    assert needed.keys() == {"f0", "f1", "f2"}
    assert read_answer(form, {**sent, "f1": ["10"]})[1] == {"f1": "This must be at most 9."}
    assert read_answer(form, {**sent, "f1": ["2.5"]})[1] == {"f1": "This must be a whole number."}


@pytest.mark.parametrize(
    ("type_", "sent", "answer"),
    [
        (bool, "false", False),
        (Way, "0", "air"),
        (str, "yes", "yes"),
        (str, "", ""),
        (int | None, "", None),
        (int | None, "7", 7),
        (Annotated[float, Meta(gt=0)], "0.5", 0.5),
        (date, "2026-01-31", "2026-01-31"),
    ],
)
def test_an_answer_that_is_no_object_has_one_field(type_: Any, sent: str, answer: Json) -> None:
    given, errors = read_answer(expecting(type_), {"f0": [sent]})
    assert errors == {} and given is not None
    assert json.loads(given) == answer
    decode(given, type_, where="answer")


@pytest.mark.parametrize(
    "type_", [list[int], dict[str, int], int | str, tuple[int, int], Shipping | None, list[Shipping]]
)
def test_what_has_no_simple_field_is_asked_for_as_json(type_: Any) -> None:
    assert expecting(type_).fields is None


@pytest.mark.parametrize(
    "schema",
    [
        True,
        [],
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": 3},
        {"type": "object", "properties": {"a": {"enum": {}}}},
        {"type": "object", "properties": {str(n): {"type": "string"} for n in range(51)}},
        {"type": ["object", 3]},
        {"type": "array", "items": [{"enum": [1]}]},
        {"anyOf": [7]},
    ],
)
def test_a_schema_that_says_nonsense_asks_for_json(schema: Json) -> None:
    assert form_of(b"1", json.dumps(schema).encode()).fields is None


def test_bounds_and_words_of_the_wrong_kind_count_for_nothing() -> None:
    odd = {
        "type": "string",
        "maxLength": "x",
        "minLength": [],
        "pattern": 1,
        "format": {},
        "description": 4,
        "default": {},
    }
    form = form_of(b"1", json.dumps(odd).encode())
    assert read_answer(form, {"f0": ["a"]}) == (b'"a"', {})


def test_fields_of_the_data_count_before_the_schema() -> None:
    form = form_of(json.dumps(FIELDS).encode(), schema_of(bool))
    assert form.fields is not None and len(form.fields) == 7 and not form.bare


async def test_the_page_asks_for_the_fields_of_the_answer(served: Served, hand: Hand) -> None:
    schema = json.loads(schema_of(Shipping) or b"")
    schema["$defs"]["Shipping"]["properties"]["boxes"]["description"] = "<b>How many?</b>"
    id = await asked(served, hand, {"parcel": 7}, answer_schema=schema)
    async with browser(served) as client:
        page = await client.post("/sign-in", data={"key": served.key, "next": f"/approve/{id}/approve"})
        check_page(page)
        for text in (">way<", ">land<", ">boxes<", "&lt;b&gt;How many?", ">insured<", "name='f2' value='true'"):
            assert text in page.text, text
        wrong = await client.post(f"/approve/{id}/approve", data={**fields_of(page.text), "f0": "1", "f1": "many"})
        check_page(wrong)
        assert wrong.status_code == 422 and "whole number" in wrong.text and "value='many'" in wrong.text
        sent = {**fields_of(page.text), "f0": "0", "f1": "2", "f2": "true"}
        done = await client.post(f"/approve/{id}/approve", data=sent)
        assert "This has been answered" in done.text
    stands = (await served.client.get(path_of(id))).json()["answer"]
    assert stands == {"way": "air", "boxes": 2, "insured": True}
