"""The page that asks: behind a sign-in or a link, forms of all kinds, hostile data, without JavaScript."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from msgspec import Raw
from tests.server import users
from tests.server.agents.test_approvals import asked, link_of, path_of
from tests.server.serving import Hand, Served, serving
from tests.server.users import PASSWORD, member

from perdure.server.routes import approval_page
from perdure.wire.agents.answer_forms import form_of, read_answer
from perdure.wire.agents.approvals import Question, QuestionState
from perdure.wire.base.access import Role

Json = Any

TOOL: Json = {
    "_form": {
        "title": "Run rm -rf?",
        "description": "The agent wants to delete files.",
        "context": {"command": "rm -rf build", "host": "ci-7"},
        "fields": [
            {"key": "approved", "type": "boolean", "label": "Approve?", "required": True},
            {"key": "feedback", "type": "textarea", "label": "Feedback", "description": "Told to the agent."},
        ],
    },
    "_source": "agent",
    "_tool": "shell",
    "_approval_url": "https://evil.example/",
    "amount": 120,
}
FIELDS: Json = {
    "_form": {
        "fields": [
            {"key": "name", "type": "text", "label": "Name", "required": True, "default": "Ann"},
            {"key": "count", "type": "integer", "label": "How many", "required": True},
            {"key": "rate", "type": "number", "label": "Rate"},
            {"key": "sure", "type": "boolean", "label": "Sure?", "required": True, "default": False},
            {
                "key": "size",
                "type": "select",
                "label": "Size",
                "options": ["S", {"value": 2, "label": "M"}],
                "default": 2,
            },
            {"key": "tags", "type": "multiselect", "label": "Tags", "options": ["a", "b", "c"], "default": ["b"]},
            {"key": "day", "type": "date", "label": "Day"},
        ]
    }
}


@asynccontextmanager
async def browser(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody with cookies and no key, who follows redirects."""
    async with users.browser(served) as client:
        client.follow_redirects = True
        yield client


def fields_of(html: str) -> dict[str, str]:
    """The hidden fields of the page's form."""
    return dict(re.findall(r"<input type='hidden' name='(\w+)' value='([^']*)'>", html))


def check_page(page: httpx2.Response) -> None:
    """The page loads and runs nothing but the style sheet."""
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "style-src 'self'" in policy and "script-src" not in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
    assert page.headers["cache-control"] == "no-store" and page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script|<style|<img|<iframe|\son\w+=|\sstyle=|javascript:", page.text, re.IGNORECASE)


async def test_a_key_signs_in_and_the_answer_is_shown_with_who_and_when(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    key = await served.key_of(Role.WRITE)
    async with browser(served) as client:
        page = await client.get(f"/approve/{id}/approve")
        check_page(page)
        assert page.status_code == 401 and "API key" in page.text and "rm -rf" not in page.text
        wrong = await client.post("/sign-in", data={"key": "sk_wrong", "next": f"/approve/{id}/approve"})
        check_page(wrong)
        assert wrong.status_code == 401 and "aria-invalid='true'" in wrong.text and "sk_wrong" not in wrong.text
        page = await client.post("/sign-in", data={"key": key, **{"next": fields_of(page.text)["next"]}})
        check_page(page)
        assert page.status_code == 200
        for text in ("Run rm -rf?", "delete files", "rm -rf build", "ci-7", "shell", "120", ">Approve<", ">Reject<"):
            assert text in page.text
        assert "evil.example" not in page.text, "where to answer is for us to say"
        done = await client.post(
            f"/approve/{id}/approve", data={**fields_of(page.text), "f1": "Only\r\nbuild, please", "f0": "true"}
        )
        check_page(done)
        assert done.status_code == 200 and done.history[0].status_code == 303
        assert "This has been answered" in done.text and "Approved" in done.text and "(you)" in done.text
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", done.text)
        again = await client.post(f"/approve/{id}/approve", data={**fields_of(page.text), "f0": "false"})
        assert again.status_code == 409 and "This has been answered" in again.text
    shown = (await served.client.get(path_of(id))).json()
    assert shown["answer"] == {"approved": True, "feedback": "Only\nbuild, please"}
    assert shown["answered_how"] == "page" and shown["answered_by"].startswith("key ")


async def test_a_member_signs_in_with_a_password(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    async with member(served, "Write") as somebody:
        email = somebody.email
    async with browser(served) as client:
        way = {"next": f"/approve/{id}/approve", "email": email}
        wrong = await client.post("/sign-in", data={**way, "password": "not the one"})
        check_page(wrong)
        assert wrong.status_code == 401 and "id='email-error'" in wrong.text and "not the one" not in wrong.text
        page = await client.post("/sign-in", data={**way, "password": PASSWORD})
        assert page.status_code == 200 and "Run rm -rf?" in page.text and email in page.text
        data = {**fields_of(page.text), "f0": "true"}
        refused = await client.post(f"/approve/{id}/approve", data=data, headers={"sec-fetch-site": "cross-site"})
        assert refused.status_code == 403
        done = await client.post(f"/approve/{id}/approve", data=data)
        assert "Approved" in done.text and "(you)" in done.text
    shown = (await served.client.get(path_of(id))).json()
    assert email in shown["answered_by"] and shown["answered_how"] == "page"


async def test_a_link_opens_the_page_without_a_sign_in(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    link = await link_of(served, id)
    async with browser(served) as client:
        page = await client.get(f"/approve/{id}/approve?link={link}")
        assert page.status_code == 200 and "ann@example.com" in page.text
        done = await client.post(f"/approve/{id}/approve?link={link}", data={**fields_of(page.text), "f0": "false"})
        assert "Rejected" in done.text and "ann@example.com" in done.text and "signed link" in done.text
        broken = await client.get(f"/approve/{id}/approve?link={link}x")
        check_page(broken)
        assert broken.status_code == 401 and "does not open" in broken.text and "Rejected" not in broken.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {"approved": False}


async def test_a_reader_may_not_answer_and_another_project_sees_nothing(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    _, headers = await served.other_project()
    for key, status in (
        (await served.key_of(Role.READ), 403),
        (headers["authorization"].removeprefix("Bearer "), 404),
    ):
        async with browser(served) as client:
            page = await client.post("/sign-in", data={"key": key, "next": f"/approve/{id}/approve"})
            check_page(page)
            assert page.status_code == status and "rm -rf" not in page.text
            page = await client.post(f"/approve/{id}/approve", data={"f0": "true"})
            assert page.status_code == status
    assert (await served.client.get(path_of(id))).json()["state"] == "open"


async def test_without_keys_the_plain_link_opens_directly(database: str) -> None:
    async with serving(database, insecure_local=True) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await asked(served, hand, TOOL)
        async with browser(served) as client:
            page = await client.get(f"/approve/{id}/approve")
            assert page.status_code == 200 and "Run rm -rf?" in page.text
            done = await client.post(f"/approve/{id}/approve", data={**fields_of(page.text), "f0": "true"})
            assert "Approved" in done.text


async def test_another_sites_page_answers_nothing(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    path = f"/approve/{id}/approve?link={await link_of(served, id)}"
    async with browser(served) as client:
        for name, value in (
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("host", f"127.0.0.1:{served.address[1]}"),
        ):
            client.headers.pop("sec-fetch-site", None)  # older browsers, and all of them without TLS
            reply = await client.post(path, data={"f0": "true"}, headers={name: value})
            assert reply.status_code == 403
            reply = await client.post("/sign-in", data={"key": served.key, "next": "/"}, headers={name: value})
            assert reply.status_code == 403 and "set-cookie" not in reply.headers
        ours = {"origin": str(client.base_url).rstrip("/")}
        assert (await client.post("/sign-in", data={"key": served.key, "next": "/"}, headers=ours)).status_code == 200
    assert (await served.client.get(path_of(id))).json()["state"] == "open"


async def test_signing_in_leads_nowhere_else(served: Served) -> None:
    async with users.browser(served) as client:
        for path in ("//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:x", "", "/\n/x"):
            reply = await client.post("/sign-in", data={"key": served.key, "next": path})
            assert reply.status_code == 303 and reply.headers["location"] == "/"


# --- forms -----------------------------------------------------------------------------------------------------------


async def test_mistakes_are_told_beside_their_fields_and_nothing_is_lost(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, FIELDS)
    path = f"/approve/{id}/approve?link={await link_of(served, id)}"
    async with browser(served) as client:
        page = await client.get(path)
        assert "value='Ann'" in page.text
        assert re.search(r"<option value='1' selected>M</option>", page.text)
        assert "name='f5' value='1' checked" in page.text and "name='f3' value='false' checked" in page.text
        sent = {**fields_of(page.text), "f0": " ", "f1": "many", "f2": "1e999", "f4": "7", "f6": "soon"}
        wrong = await client.post(path, data=sent)
        check_page(wrong)
        assert wrong.status_code == 422 and "<title>Error: " in wrong.text
        for name in ("f0", "f1", "f2", "f3", "f4", "f6"):
            assert f"href='#{name}'" in wrong.text and f"id='{name}-error'" in wrong.text
            assert re.search(
                rf"id='{name}'[^>]*aria-describedby='[^']*{name}-error'[^>]*aria-invalid='true'", wrong.text
            )
        assert "value='many'" in wrong.text and "f5-error" not in wrong.text
        assert (await served.client.get(path_of(id))).json()["state"] == "open"
        right = {**fields_of(page.text), "f0": "Bob", "f1": "99999999999999999999", "f2": "0.5", "f3": "true"}
        done = await client.post(path, data={**right, "f4": "0", "f5": ["0", "2"], "f6": "2026-02-01"})
        assert "This has been answered" in done.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {
        "name": "Bob",
        "count": 99999999999999999999,
        "rate": 0.5,
        "sure": True,
        "size": "S",
        "tags": ["a", "c"],
        "day": "2026-02-01",
    }


async def test_every_field_has_a_label_or_a_legend(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, FIELDS)
    async with browser(served) as client:
        text = (await client.get(f"/approve/{id}/approve?link={await link_of(served, id)}")).text
    for name in ("f0", "f1", "f2", "f4", "f6"):
        assert f"<label for='{name}'>" in text and re.search(rf"<(input|select) id='{name}'", text)
    assert text.count("<fieldset") == text.count("<legend>") == 2
    assert "<html lang='en'>" in text and text.count("<h1") == 1


async def test_plain_data_is_shown_as_it_is_and_answered_with_json(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, [1, {"a": "b"}])
    path = f"/approve/{id}/approve?link={await link_of(served, id)}"
    async with browser(served) as client:
        page = await client.get(path)
        assert "&quot;a&quot;: &quot;b&quot;" in page.text and "<label for='answer'>" in page.text
        wrong = await client.post(path, data={**fields_of(page.text), "answer": "yes"})
        assert wrong.status_code == 422 and "answer-error" in wrong.text and ">\nyes</textarea>" in wrong.text
        done = await client.post(path, data={**fields_of(page.text), "answer": ' {"n": 1.50} '})
        assert "This has been answered" in done.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {"n": 1.5}


async def test_the_title_of_the_page_is_the_one_of_the_question(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, {"_form": {"title": "R&D's \u202e<5%?"}})
    async with browser(served) as client:
        page = await client.get(f"/approve/{id}/approve?link={await link_of(served, id)}")
    [title] = re.findall(r"<title>(.*?)</title>", page.text)
    assert unescape(title) == "R&D's \ufffd<5%?" and "<" not in title


HOSTILE = "</textarea></pre><script>alert(1)</script><img src=x onerror=alert(2)>'\"&[click](javascript:alert(3))"
REVERSED = "pay \u202e001\u202c now \u2066x\u2069 a\u200bb \u0000\u0007"


async def test_hostile_data_is_text(served: Served, hand: Hand) -> None:
    hostile: Json = {
        "_form": {
            "title": HOSTILE,
            "description": REVERSED.replace("\0", ""),
            "context": {HOSTILE: HOSTILE, "deep": {"x": [HOSTILE]}},
            "fields": [
                {"key": HOSTILE, "type": HOSTILE, "label": HOSTILE, "description": HOSTILE, "default": HOSTILE},
                {"key": "s", "type": "select", "label": "S", "options": [HOSTILE, {"value": 1, "label": HOSTILE}]},
                {"key": "m", "type": "multiselect", "label": "M", "options": [HOSTILE]},
                {"key": "t", "type": "textarea", "label": "T", "default": HOSTILE},
            ],
        },
        "_source": HOSTILE,
        "_tool": HOSTILE,
        "long": "x" * 300_000,
    }
    key = HOSTILE[:60].replace("/", "_")
    id = await asked(served, hand, hostile, key=key)
    reply = await served.client.post(f"{path_of(id, key)}/links", json={"name": "<b>Ann</b>"})
    path = reply.json()["path"]
    async with browser(served) as client:
        page = await client.get(path)
        check_page_of_hostile(page)
        assert "U+202E" in page.text and "\u202e" not in page.text and "\u2066" not in page.text
        assert "more characters)" in page.text and len(page.text) < 300_000
        assert "does not show all that is asked" in page.text and f"GET /api/v1/approvals/{id}/" in page.text
        wrong = await client.post(path, data={**fields_of(page.text), "f1": HOSTILE, "f0": HOSTILE})
        assert wrong.status_code == 422
        check_page_of_hostile(wrong)
        done = await client.post(path, data={**fields_of(page.text), "f0": HOSTILE, "f1": "0"})
        check_page_of_hostile(done)
        assert "This has been answered" in done.text
    answer = (await served.client.get(path_of(id, key))).json()["answer"]
    assert answer == {HOSTILE: HOSTILE, "s": HOSTILE}


FULLWIDTH_SPACE, FAMILY, KEYCAP = "\u3000", "\U0001f468\u200d\U0001f469", "1\ufe0f\u20e3"


@pytest.mark.parametrize("kind", ["textarea", "text"])
async def test_what_cannot_be_seen_in_a_field_is_named_and_spelled_out_below_it(
    served: Served, hand: Hand, kind: str
) -> None:
    text = (
        f'{{"to": "ann\u202ecod.exe", "pay\u200bpal": 1, "a\u200db": "\u3164", "{FAMILY}{FULLWIDTH_SPACE}{KEYCAP}": 2}}'
    )
    fields = [
        {"key": "arguments", "type": kind, "label": "Arguments", "default": text},
        {"key": "plain", "type": kind, "default": "two\n\tlines, naïve שלום 🙂"},
    ]
    id = await asked(served, hand, {"_form": {"fields": fields}})
    async with browser(served) as client:
        path = f"/approve/{id}/approve?link={await link_of(served, id)}"
        page = await client.get(path)
        check_page(page)
        assert page.text.count("cannot be seen") == 1 and " aria-describedby='f0-odd'" in page.text
        [warning] = re.findall(r"<div class='warning' id='f0-odd'>(.*?)</div>", page.text, re.DOTALL)
        for name in (
            "U+202E right-to-left override (1)",
            "U+200B zero width space (1)",
            "U+200D zero width joiner (1)",
            "U+3164 hangul filler (1)",
        ):
            assert name in warning
        spelled = unescape(re.sub(r"<[^>]*>", "", warning.partition("<pre")[2].partition(">")[2]))
        assert spelled == text.replace("\u202e", "U+202E").replace("\u200b", "U+200B").replace(
            "a\u200db", "aU+200Db"
        ).replace("\u3164", "U+3164")
        done = await client.post(path, data={**fields_of(page.text), "f0": text})
        assert "This has been answered" in done.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {"arguments": text}


async def test_data_of_any_length_that_a_person_reads_is_shown_whole(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, {**TOOL, "arguments": {"text": "x" * 100_000 + " the end"}})
    async with browser(served) as client:
        page = await client.get(f"/approve/{id}/approve?link={await link_of(served, id)}")
        assert "x the end" in page.text and "does not show all" not in page.text


async def test_an_answer_that_came_before_the_question_is_shown_on_its_page(served: Served, hand: Hand) -> None:
    id = await served.start("w")
    early = await served.client.post(f"/api/v1/executions/{id}/resume/approve", json={"data": {"approved": True}})
    assert early.json()["state"] == "early"
    wait = {"type": "wait", "key": "approve", "fingerprint": "f", "data": TOOL}
    await hand.report(await hand.claim(), entries=[wait], end={"type": "suspend", "waits": ["approve"]})
    async with browser(served) as client:
        path = f"/approve/{id}/approve?link={await link_of(served, id)}"
        page = await client.get(path)
        check_page(page)
        assert "before this was asked. That answer does not count." in page.text
        done = await client.post(path, data={**fields_of(page.text), "f0": "false"})
        assert "Rejected" in done.text
    assert (await served.client.get(path_of(id))).json()["answer"] == {"approved": False}


def check_page_of_hostile(page: httpx2.Response) -> None:
    for markup in ("<script", "<img", "<b>", "</textarea></pre>"):
        assert markup not in page.text
    tags = re.sub(r"<[^<>]*>", "", page.text)
    assert "<" not in tags and ">" not in tags
    assert re.findall(r"<a href='([^']*)'", page.text) in (
        [],
        *[[f"#f{n}" for n in range(k)] for k in range(9)],
        ["#f1"],
    )
    for attribute in re.findall(r"<\w+([^<>]*)>", page.text):
        left = re.sub(r"\s[\w-]+(='[^']*')?", "", attribute)
        assert left == "", f"an attribute that was not written by us: {attribute!r}"


@pytest.mark.parametrize(
    "data",
    [
        None,
        0,
        "text",
        {"_form": 1},
        {"_form": {"fields": {}}},
        {"_form": {"fields": []}},
        {"_form": {"fields": [1]}},
        {"_form": {"fields": [{"key": 1}]}},
        {"_form": {"fields": [{"key": "a"}, {"key": "a"}]}},
        {"_form": {"fields": [{"key": "a", "type": "select"}]}},
        {"_form": {"fields": [{"key": "a", "type": "select", "options": "abc"}]}},
        {"_form": {"fields": [{"key": "a", "type": "select", "options": [{}]}]}},
        {"_form": {"fields": [{"key": str(n)} for n in range(51)]}},
        {"_form": {"title": 1, "description": [], "context": False}, "_notify": 3, "_source": {}},
        {"n": 10**3_000},
    ],
)
def test_a_form_that_is_none_is_asked_for_as_json(data: Json) -> None:
    shown = Raw(json.dumps(data).encode())
    question = Question("q", "e", "w", "approve", QuestionState.OPEN, shown, 1)
    html = approval_page.question_page(question, answering_as="Ann")
    assert "<label for='answer'>" in html and "<script" not in html


async def test_what_is_not_there_is_a_page_too(served: Served) -> None:
    async with browser(served) as client:
        for path in ("/approve/nonsense/x", "/approve/0190a5f2-7c1e-7b3a-9d55-0242ac120002/x?link=a.b"):
            page = await client.get(path)
            assert page.status_code in (400, 401, 404) and page.headers["content-type"].startswith("text/html")
            check_page(page)
            body = await client.post(path, content=b"\xff", headers={"content-type": "text/plain"})
            assert 400 <= body.status_code < 500
            check_page(body)


async def test_what_a_browser_never_sends_is_refused(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, TOOL)
    path = f"/approve/{id}/approve?link={await link_of(served, id)}"
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with browser(served) as client:
        for content, headers, status in (
            (b"{}", {"content-type": "application/json"}, 415),
            (b"f0=%ff", form, 400),
            (b"\xff", form, 400),
            (b"&".join(b"a=%d" % n for n in range(3_000)), form, 400),
            (b"f1=" + b"x" * (5 << 20), form, 413),
            (b"", form, 422),
        ):
            reply = await client.post(path, content=content, headers=headers)
            assert reply.status_code == status, (content[:20], reply.text[:200])
    assert (await served.client.get(path_of(id))).json()["state"] == "open"


async def test_an_expired_question_says_so(served: Served, hand: Hand) -> None:
    until_us = served.engine.clock.now_us() + 1
    id = await asked(served, hand, TOOL, expires_at_us=until_us)
    async with browser(served) as client:
        page = await client.post("/sign-in", data={"key": served.key, "next": f"/approve/{id}/approve"})
        assert "The time to answer is over" in page.text and ">Approve<" not in page.text
        assert urlsplit(str(page.url)).path == f"/approve/{id}/approve"


def test_answers_keep_their_types() -> None:
    form = form_of(
        b'{"_form":{"fields":[{"key":"n","type":"number"},{"key":"i","type":"int"},{"key":"b","type":"bool"}]}}'
    )
    assert read_answer(form, {"f0": ["1"], "f1": ["-5"], "f2": ["false"]})[0] == b'{"n": 1, "i": -5, "b": false}'
    assert read_answer(form, {})[0] == b"{}"
    assert set(read_answer(form, {"f0": ["nan"], "f1": ["1.5"], "f2": ["maybe"]})[1]) == {"f0", "f1", "f2"}
