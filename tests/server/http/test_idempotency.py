"""Idempotency-Keys over HTTP: every creating POST, and replies without stored secrets."""

import re
from typing import Any, Final, NamedTuple

import pytest
from tests.server.requests import FITTING, ROUTES, body_of
from tests.server.serving import Hand, Served
from tests.server.users import PROJECTS, member, person

ONCE: Final = {"idempotency-key": "once"}
CONVERSATION: Final = "/internal/conversation/{conversation_id}/add"
RUN: Final = {"payload": 1}
KEYS: Final = "/api/v1/api-keys"
MEMBERS: Final = f"{PROJECTS}/{{project_id}}/members"
ROTATE: Final = "/api/v1/signing-secret/rotate"
TRIGGER: Final = {"workflow_id": "w", "deployment_id": "default", "event_topic": "t", "batch_size": 1}
SCHEDULE: Final = {"workflow_id": "w", "cron": "0 9 * * *", "timezone": "UTC", "key": "k"}


class Case(NamedTuple):
    """Two bodies of a route: the second may not reuse the first's key."""

    body: Any
    other: Any
    shown_once: bool = False


ACT: Final = "/api/v1/executions/{execution_id}/act"
COMPLETE: Final = {"action": "complete", "key": "approve", "value": 1}
CANCEL: Final = {"action": "cancel", "filters": {"workflow_id": "w"}}
CASES: Final[dict[str, Case]] = {
    "/api/v1/workflows/{workflow_id}/run": Case(RUN, {"payload": 2}),
    "/api/v1/workflows/batch_run": Case(
        {"workflows": [{"workflow_id": "w", **RUN}]}, {"workflows": [{"workflow_id": "w", "payload": 2}]}
    ),
    "/api/v1/executions": Case({"items": [{"workflow_id": "w", **RUN}]}, {"items": [{"workflow_id": "w"}]}),
    "/api/v1/executions/{execution_id}/fork": Case({"note": "why"}, {"note": "why not"}),
    "/api/v1/executions/{execution_id}/retry": Case({"note": "why"}, {"note": "why not"}),
    ACT: Case(COMPLETE, COMPLETE | {"value": 2}),
    "/api/v1/executions/{execution_id}/budget/raise": Case({"tokens": 1}, {"tokens": 2}),
    "/api/v1/bulk": Case(CANCEL, CANCEL | {"note": "why"}),
    "/api/v1/event-triggers/register": Case(TRIGGER, TRIGGER | {"batch_size": 2}),
    "/internal/session/{session_id}/transcript": Case({"messages": [1]}, {"messages": [2]}),
    CONVERSATION: Case(
        {"agent_id": "a", "role": "user", "content": "hi"}, {"agent_id": "a", "role": "user", "content": "ho"}
    ),
    MEMBERS: Case({"email": "new@example.com", "role": "Read"}, {"email": "new@example.com", "role": "Write"}, True),
    KEYS: Case({"name": "one"}, {"name": "two"}, True),
    "/api/v1/webhooks": Case({"url": "https://1.1.1.1/a"}, {"url": "https://1.1.1.1/b"}),
    ROTATE: Case({"overlap_hours": 1}, {"overlap_hours": 2}),
}


KEYED: Final = {route.path: route for route in ROUTES if route.idempotent}


def case_of(path: str) -> Case:
    """Bodies from the document that differ in a number or a text, unless listed in CASES."""
    if path in CASES:
        return CASES[path]
    body = body_of(KEYED[path])
    if not body:
        return Case(body, None)
    name = next((name for name, value in body.items() if type(value) in (int, str) and name not in FITTING), None)
    assert name is not None, f"{path}: which bodies differ? Give CASES two of them"
    return Case(body, {**body, name: body[name] * 2})


def test_only_posts_take_the_key() -> None:
    assert {route.method for route in KEYED.values()} == {"POST"}
    assert set(CASES) <= KEYED.keys()


@pytest.mark.parametrize("path", KEYED)
async def test_the_same_request_counts_once_and_another_body_is_refused(served: Served, hand: Hand, path: str) -> None:
    case = case_of(path)
    client = served.client
    values = {"workflow_id": "w", "project_id": served.project_id}
    if "{execution_id}" in path:
        budgeted = {"payload": None, "budget": {"tokens": 9}}
        values["execution_id"] = (await client.post("/api/v1/workflows/w/run", json=budgeted)).json()["execution_id"]
    if path == ACT:
        wait = {"type": "wait", "key": "approve", "fingerprint": None}
        await hand.report(await hand.claim(), entries=[wait], end={"type": "suspend", "waits": ["approve"]})
    if path == "/api/v1/bulk":
        await served.start()
    if path.endswith("/retry"):
        await client.post(f"/api/v1/executions/{values['execution_id']}/cancel")
    if "{schedule_id}" in path:
        made = await client.post("/api/v1/schedules", json=SCHEDULE)
        values["schedule_id"] = made.json()["schedule_id"]
    url = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "x"), path)
    async with member(served) as ann:
        asker = ann.client if path == PROJECTS else client

        async def ask(body: Any) -> Any:
            more = {"project_id": served.project_id} if path == KEYS else {}
            return await asker.post(url, json=body and body | more, headers=ONCE)

        first, again = await ask(case.body), await ask(case.body)
        assert first.status_code == 200, first.text
        if case.shown_once:
            assert (again.status_code, again.json()["error_type"]) == (409, "SECRET_SHOWN_ONCE")
        else:
            assert (again.status_code, again.json()) == (200, first.json())
        if case.other is not None:
            refused = await ask(case.other)
            assert (refused.status_code, refused.json()["error_type"]) == (409, "IDEMPOTENCY_KEY_REUSED")


async def test_a_project_that_is_made_again_is_the_first_and_keys_are_each_user_s_own(served: Served) -> None:
    async with member(served) as ann, member(served) as bob:
        for somebody in (ann, bob, ann):
            assert (await somebody.client.post(PROJECTS, json={"name": "Shop"}, headers=ONCE)).status_code == 200
        for somebody in (ann, bob):
            names = [one["name"] for one in (await somebody.client.get(PROJECTS)).json()["projects"]]
            assert names == ["Shop", "default"]


async def test_a_repeated_key_says_what_the_first_request_made(served: Served) -> None:
    body = {"name": "deploy", "project_id": served.project_id}
    made = (await served.client.post(KEYS, json=body, headers=ONCE)).json()
    again = (await served.client.post(KEYS, json=body, headers=ONCE)).json()
    assert again["details"] == {"id": made["id"], "name": "deploy"}
    assert f"DELETE /api/v1/api-keys/{made['id']}" in again["error"] and made["key"] not in str(again)
    assert (await served.client.delete(f"{KEYS}/{made['id']}")).status_code == 200
    other = await served.client.post(KEYS, json=body, headers={"idempotency-key": "another"})
    assert other.status_code == 200, "as the message says"
    assert len((await served.client.get(KEYS)).json()["keys"]) == 2, "it and the one of these tests"


async def test_an_invitation_that_is_sent_again_leaves_the_first_token_good(served: Served) -> None:
    url = MEMBERS.format(project_id=served.project_id)
    body = {"email": "new@example.com", "role": "Read"}
    token = (await served.client.post(url, json=body, headers=ONCE)).json()["invitation"]
    again = (await served.client.post(url, json=body, headers=ONCE)).json()
    assert again["details"] == {"email": "new@example.com"} and token not in str(again)
    async with person(served, "new@example.com", invitation=token):
        pass


async def test_a_secret_is_replaced_once_and_told_again_while_it_is_the_present_one(served: Served) -> None:
    async def rotate(key: str) -> Any:
        return await served.client.post(ROTATE, json={"overlap_hours": 1}, headers={"idempotency-key": key})

    first = (await rotate("a")).json()
    assert (await rotate("a")).json() == first == (await served.client.get("/api/v1/signing-secret")).json()
    second = (await rotate("b")).json()
    late = await rotate("a")
    assert (late.status_code, late.json()["error_type"]) == (409, "SECRET_SHOWN_ONCE")
    assert (await served.client.get("/api/v1/signing-secret")).json() == second


async def test_a_message_is_appended_once(served: Served) -> None:
    url = CONVERSATION.format(conversation_id="c")
    for _ in range(2):
        assert (await served.client.post(url, json=CASES[CONVERSATION].body, headers=ONCE)).status_code == 200
    read = await served.client.get("/api/v1/conversation/c/get?agent_id=a")
    assert len(read.json()["messages"]) == 1


async def test_a_trigger_that_was_deleted_is_not_made_by_a_late_repeat(served: Served, hand: Hand) -> None:
    register, where = "/api/v1/event-triggers/register", "/api/v1/event-triggers"
    await served.client.post(register, json=TRIGGER, headers=ONCE)
    [made] = (await served.client.get(where)).json()["triggers"]
    assert (await served.client.delete(f"{where}/{made['id']}")).status_code == 204
    assert (await served.client.post(register, json=TRIGGER, headers=ONCE)).json() == {}
    assert (await served.client.get(where)).json()["triggers"] == []
