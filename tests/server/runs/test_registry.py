"""Registrations of workers over HTTP, and their display: deployments, workflows, agents, tools, queues, runs."""

import asyncio
from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.store.base.interface import record, verb
from perdure.wire.base.access import Role
from perdure.wire.runs.requests import QueueSpec

V1 = "/api/v1"
DEPLOYMENTS = f"{V1}/workers/deployments"


async def post(served: Served, path: str, body: Any, status: int = 200, **options: Any) -> Any:
    reply = await served.client.post(path, json=body, **options)
    assert reply.status_code == status, reply.text
    return reply.json()


async def get(served: Served, path: str, status: int = 200, **options: Any) -> Any:
    reply = await served.client.get(f"{V1}/{path}", **options)
    assert reply.status_code == status, reply.text
    return reply.json()


async def push(served: Served, deployment_id: str = "v1", **workflows: str) -> None:
    """A deployment of push workers with workflows by their types."""
    assert await post(served, DEPLOYMENTS, {"deployment_id": deployment_id}) == {}
    for id, kind in workflows.items():
        body = {"workflow_id": id, "workflow_type": kind, "trigger_on_event": None, "unknown": "is ignored"}
        assert await post(served, f"{DEPLOYMENTS}/{deployment_id}/workflows", body) == {}


# --- deployments -----------------------------------------------------------------------------------------------------


async def test_a_push_deployment_takes_any_workflow(served: Served) -> None:
    early = await served.start("whatever")
    await push(served)
    shown = await get(served, "deployments/v1")
    assert shown == {
        "id": "v1",
        "project_id": served.project_id,
        "status": "active",
        "created_at": shown["created_at"],
        "current": True,
        "served_by": "push",
        "registered_at": shown["created_at"],
        "superseded_at": None,
    }
    id = await served.start("another", accept_early=False)
    for one, workflow in ((early, "whatever"), (id, "another")):
        found = await get(served, f"executions/{one}")
        assert (found["deployment_id"], found["queue_name"], found["status"]) == ("v1", workflow, "pending")
    await push(served)
    again = await get(served, "deployments/v1")
    assert again["created_at"] == shown["created_at"] and again["registered_at"] > shown["registered_at"]


async def test_a_native_deployment_takes_what_its_workers_have(served: Served, hand: Hand) -> None:
    shown = await get(served, "deployments/default")
    assert (shown["served_by"], shown["current"], shown["status"]) == ("native", True, "active")
    body = {"payload": 1}
    assert (await post(served, f"{V1}/workflows/other/run", body, 404))["error_type"] == "WORKFLOW_NOT_FOUND"
    unknown = await post(served, f"{V1}/workflows/w/run", {**body, "deployment_id": "nowhere"}, 404)
    assert unknown["error_type"] == "DEPLOYMENT_NOT_FOUND"
    assert (await get(served, "deployments/nowhere", 404))["error_type"] == "DEPLOYMENT_NOT_FOUND"


async def test_a_deployment_changes_sides_only_when_nobody_of_the_other_is_there(served: Served, hand: Hand) -> None:
    problem = await post(served, DEPLOYMENTS, {"deployment_id": "default"}, 409)
    assert "'default' is served by native workers" in problem["error"]
    refused = await post(
        served, f"{DEPLOYMENTS}/default/workflows", {"workflow_id": "x", "workflow_type": "workflow"}, 409
    )
    assert "native workers" in refused["error"]
    await hand.say("drain", {"worker_id": hand.id, "epoch": hand.epoch})
    await push(served, "default", x="workflow")
    assert [one["workflow_id"] for one in await get(served, "workflows")] == ["x"], "of native times nothing is left"
    assert (await get(served, "deployments/default"))["served_by"] == "push"
    await Hand(served.client, ("y",)).register()
    assert [one["workflow_id"] for one in await get(served, "workflows")] == ["y"]
    assert (await get(served, "deployments/default"))["served_by"] == "native"


async def test_new_executions_go_to_the_deployment_that_came_last(served: Served, hand: Hand) -> None:
    await push(served, "v1")
    await push(served, "v2")
    await push(served, "v1")
    assert [(await get(served, f"deployments/{id}"))["current"] for id in ("default", "v1", "v2")] == [
        False,
        False,
        True,
    ]
    id = await served.start()
    assert (await get(served, f"executions/{id}"))["deployment_id"] == "v2"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("", {"deployment_id": ""}, 422, "deployment_id: is empty"),
        ("", {}, 422, "deployment_id"),
        ("/nowhere/workflows", {"workflow_id": "w", "workflow_type": "workflow"}, 404, "'nowhere' does not exist"),
        ("/v1/workflows", {"workflow_id": "w", "workflow_type": "lambda"}, 400, "body.workflow_type: 'lambda'"),
        ("/v1/workflows", {"workflow_id": "a\0", "workflow_type": "tool"}, 422, "workflow_id: holds"),
        ("/v1/workflows", {"workflow_id": "w"}, 422, "workflow_type"),
    ],
)
async def test_what_cannot_be_registered_is_named(served: Served, path: str, body: Any, status: int, says: str) -> None:
    await push(served)
    assert says in (await post(served, DEPLOYMENTS + path, body, status))["error"]


# --- workflows -------------------------------------------------------------------------------------------------------


async def test_workflows_are_listed_once_per_deployment(served: Served) -> None:
    hand = Hand(served.client, ("b", "a"))
    await hand.register()
    await push(served, "v1", a="workflow", an_agent="agent", a_tool="tool")
    body = {"workflow_id": "a", "workflow_type": "workflow", "trigger_on_event": True, "scheduled": True}
    await post(served, f"{DEPLOYMENTS}/v1/workflows", body)
    listed = await get(served, "workflows")
    assert [(one["workflow_id"], one["deployment_id"]) for one in listed] == [
        ("a", "v1"),
        ("a", "default"),
        ("b", "default"),
    ]
    assert listed[0] == {
        "workflow_id": "a",
        "deployment_id": "v1",
        "workflow_type": "workflow",
        "trigger_on_event": True,
        "scheduled": True,
        "created_at": listed[0]["created_at"],
        "queue_name": "a",
        **dict.fromkeys(("description", "takes_input", "input_schema", "output_schema", "source")),
    }
    assert await get(served, "workflows?limit=1&offset=1") == [listed[1]]
    assert await get(served, "workflows/a") == listed[0]
    assert await get(served, "workflows/a?deployment_id=default") == listed[1]
    assert await get(served, "workflows/b") == listed[2]
    for missing in ("an_agent", "nothing", "b?deployment_id=v1"):
        assert (await get(served, f"workflows/{missing}", 404))["error_type"] == "NOT_FOUND"
    await hand.register()
    assert (await get(served, "workflows/b"))["created_at"] == listed[2]["created_at"], "as old as it was"


async def test_native_workers_say_what_is_scheduled_and_of_which_type_it_is(served: Served) -> None:
    hand = Hand(served.client)
    body = {
        "worker_id": hand.id,
        "deployment_id": "default",
        "python": "3.11",
        "workflows": [{"id": "w"}, {"id": "x"}, {"id": "t", "type": "tool"}],
        "schedules": [{"workflow_id": "w", "cron": "0 9 * * *", "timezone": "UTC", "key": "k"}],
    }
    await hand.say("register", body)
    listed = await get(served, "workflows")
    assert [(one["workflow_id"], one["scheduled"]) for one in listed] == [("w", True), ("x", False)]


async def test_runs_are_root_executions_by_type(served: Served) -> None:
    await push(served, "v1", w="workflow", an_agent="agent")
    first = await served.start("w", {"n": 1})
    agent = await served.start("an_agent", {"n": 2})
    second = await served.start("unregistered", {"n": 3})
    await served.start("w", {"n": 4}, parent_execution_id=first, step_key="child")
    runs = await get(served, "workflows/runs")
    assert [run["id"] for run in runs] == [second, first]
    assert runs[1] == {
        "id": first,
        "root_execution_id": None,
        "workflow_id": "w",
        "session_id": first,
        "created_at": runs[1]["created_at"],
        "status": "pending",
        "completed_at": None,
        "payload": {"n": 1},
        "result": None,
        "error": None,
    }
    assert [run["id"] for run in await get(served, "workflows/runs?workflow_type=agent")] == [agent]
    assert [run["id"] for run in await get(served, "workflows/runs?workflow_id=w")] == [first]
    assert [run["id"] for run in await get(served, "workflows/runs?limit=1&offset=1")] == [first]
    since, until = ({name: runs[0]["created_at"]} for name in ("start_time", "end_time"))
    assert [run["id"] for run in await get(served, "workflows/runs", params=since)] == [second]
    assert [run["id"] for run in await get(served, "workflows/runs", params=until)] == [second, first]
    long_ago = {"end_time": "2020-01-01T00:00:00Z"}
    assert await get(served, "workflows/runs", params=long_ago) == []
    for wrong in ("workflow_type=x", "limit=0", "limit=1001", "offset=-1", "start_time=x", "workflow_id=%00"):
        assert (await get(served, f"workflows/runs?{wrong}", 400))["error_type"] == "BAD_REQUEST"


async def test_a_page_of_runs_that_would_be_too_large_is_refused(served: Served) -> None:
    await push(served)
    for _ in range(2):
        await served.start("w", "x" * (5 << 20))
    assert "Ask for fewer at once" in (await get(served, "workflows/runs", 400))["error"]
    assert len(await get(served, "workflows/runs?limit=1")) == 1


# --- agents, tools ---------------------------------------------------------------------------------------------------

AGENT: dict[str, Any] = {
    "id": "writer",
    "provider": "openai",
    "model": "gpt",
    "system_prompt": "Write.\0",
    "tools": [{"name": "search"}],
    "temperature": 0.1,
    "max_output_tokens": 100,
    "config": {"a": 1e300},
    "metadata": None,
}
TOOL: dict[str, Any] = {"id": "search", "description": "Finds", "parameters": {"type": "object"}, "metadata": [1]}


async def test_agents_and_tools_are_kept_as_they_were_registered(served: Served) -> None:
    for path, body in (("agents", AGENT), ("tools", TOOL)):
        assert "no deployment yet" in (await post(served, f"{V1}/{path}/register", body, 400))["error"]
        assert (await get(served, f"{path}/{body['id']}", 400))["error_type"] == "BAD_REQUEST"
    await push(served, "v1")
    for path, body in (("agents", AGENT), ("tools", {**TOOL, "tool_type": "default"})):
        assert await post(served, f"{V1}/{path}/register", {**body, "unknown": 1}) == {"success": True}
        shown = await get(served, f"{path}/{body['id']}")
        times = {name: shown[name] for name in ("created_at", "updated_at")}
        assert shown == {**body, **times, "deployment_id": "v1"}
        assert await get(served, path) == [shown]
        changed = {**body, "metadata": {"changed": True}}
        await post(served, f"{V1}/{path}/register", {**changed, "deployment_id": "v1"})
        again = await get(served, f"{path}/{body['id']}?deployment_id=v1")
        assert again == {**changed, **times, "deployment_id": "v1", "updated_at": again["updated_at"]}
        assert again["updated_at"] > again["created_at"]
    await push(served, "v2")
    await post(served, f"{V1}/agents/register", {"id": "writer", "provider": "p", "model": "m"})
    newest, older = await get(served, "agents")
    assert (newest["deployment_id"], newest["temperature"], older["deployment_id"]) == ("v2", None, "v1")
    assert await get(served, "agents/writer") == newest
    assert (await get(served, "agents/writer?deployment_id=v1")) == older
    assert await get(served, "agents?limit=1&offset=1") == [older]
    assert (await get(served, "tools/search", 404))["error_type"] == "NOT_FOUND"
    assert (await get(served, "tools/search?deployment_id=v3", 404))["error_type"] == "DEPLOYMENT_NOT_FOUND"
    minimal = {"id": "t", "tool_type": None}
    await post(served, f"{V1}/tools/register", minimal)
    assert (await get(served, "tools/t"))["tool_type"] == "default"
    for wrong in ({"id": ""}, {"id": "t", "deployment_id": "a\0"}, {"id": "t", "metadata": "x" * (256 << 10)}):
        assert (await post(served, f"{V1}/tools/register", wrong, 422))["error_type"] == "BAD_VALUE"


async def test_a_page_of_definitions_that_would_be_too_large_is_refused(served: Served) -> None:
    await push(served)
    for n in range(34):
        await post(served, f"{V1}/tools/register", {"id": f"t{n}", "metadata": "x" * (250 << 10)})
    assert "Ask for fewer at once" in (await get(served, "tools", 400))["error"]
    assert len(await get(served, "tools?limit=5")) == 5


# --- queues ----------------------------------------------------------------------------------------------------------


@verb(reads=True)
async def _queue(*, project_id: str, name: str) -> QueueSpec | None:
    return await record(QueueSpec, "read_queue", project_id=project_id, name=name)


async def test_queues_are_the_projects_and_keep_their_total_limits(served: Served) -> None:
    async def limits(name: str) -> Any:
        queue = await served.engine.store.read(_queue(project_id=served.project_id, name=name))
        return queue and (queue.concurrency_limit, queue.total_limit)

    hand = Hand(served.client)
    body = {"worker_id": hand.id, "deployment_id": "default", "python": "3.11", "workflows": []}
    await hand.say("register", {**body, "queues": [{"name": "both", "concurrency_limit": 5, "total_limit": 9}]})
    for limit in ({"concurrency_limit": 0}, {"total_limit": 0}, {"concurrency_limit": -(2**63)}):
        given = {**body, "queues": [{"name": "both", **limit}]}
        reply = await served.client.post("/worker/v1/register", json=given, headers={"perdure-protocol": "1"})
        assert reply.status_code == 422 and "must be at least 1" in reply.json()["error"], reply.text
    await push(served)
    queues = [{"name": "both", "concurrency_limit": 2}, {"name": "free", "concurrency_limit": None}, {"name": "other"}]
    assert await post(served, f"{V1}/workers/queues", {"deployment_id": "v1", "queues": queues}) == {}
    assert [await limits(name) for name in ("both", "free", "other")] == [(2, 9), (None, None), (None, None)]
    assert await post(served, f"{V1}/workers/queues", {"deployment_id": "v1", "queues": []}) == {}
    for deployment_id, queue, status in (("v2", {"name": "q"}, 404), ("v1", {"name": ""}, 422)):
        await post(served, f"{V1}/workers/queues", {"deployment_id": deployment_id, "queues": [queue]}, status)
    problem = await post(
        served, f"{V1}/workers/queues", {"deployment_id": "v1", "queues": [{"name": "q", "concurrency_limit": 0}]}, 422
    )
    assert problem["details"] == {"path": "queues[0].concurrency_limit"}


# --- conversations, Slack --------------------------------------------------------------------------------------------


async def test_a_conversation_keeps_the_newest_messages_in_order(served: Served) -> None:
    add, run = "/internal/conversation/chat/add", "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    await asyncio.gather(
        *[post(served, add, {"agent_id": "a", "role": "user", "content": {"n": n}}) for n in range(10)]
    )
    await post(served, add, {"agent_id": "b", "role": "user", "content": "another agent's"})
    found = (await get(served, "conversation/chat/get?agent_id=a"))["messages"]
    assert [one["id"] for one in found] == list(range(1, 11))
    assert sorted(one["content"]["n"] for one in found) == list(range(10))
    await post(
        served,
        add,
        {
            "agent_id": "a",
            "role": "assistant",
            "content": None,
            "agent_run_id": run.upper(),
            "conversation_history_limit": 3,
        },
    )
    kept = (await get(served, "conversation/chat/get?agent_id=a&deployment_id=ignored"))["messages"]
    assert kept[:2] == found[-2:] and len(kept) == 3
    assert kept[2] == {
        "id": 12,
        "conversation_id": "chat",
        "agent_id": "a",
        "role": "assistant",
        "content": None,
        "created_at": kept[2]["created_at"],
        "agent_run_id": run,
    }
    assert (await get(served, "conversation/chat/get?agent_id=a&limit=2"))["messages"] == kept[1:]
    assert len((await get(served, "conversation/chat/get?agent_id=b"))["messages"]) == 1
    assert await get(served, "conversation/other/get?agent_id=a") == {"messages": []}
    assert "agent_id" in (await get(served, "conversation/chat/get", 400))["error"]
    await get(served, "conversation/chat/get?agent_id=a&limit=0", 400)
    for wrong, status in (({"agent_run_id": "x"}, 400), ({"conversation_history_limit": 0}, 400), ({"role": ""}, 422)):
        await post(served, add, {"agent_id": "a", "role": "user", "content": 1, **wrong}, status)


async def test_no_project_takes_a_slack_app_from_another(served: Served) -> None:
    _, other = await served.other_project()
    path = f"{V1}/slack/apps"
    for name in ("A1", "A2", "A1"):
        assert await post(served, path, {"api_app_id": name}) == {}
    assert [app["api_app_id"] for app in (await get(served, "slack/apps"))["apps"]] == ["A1", "A2"]
    assert (await served.client.delete(f"{path}/A1", headers=other)).status_code == 404
    assert await post(served, path, {"api_app_id": "A1"}, headers=other) == {}
    assert (await served.client.delete(f"{path}/A1")).status_code == 204
    assert (await served.client.delete(f"{path}/A1")).status_code == 404
    assert [app["api_app_id"] for app in (await get(served, "slack/apps"))["apps"]] == ["A2"]
    assert [app["api_app_id"] for app in (await get(served, "slack/apps", headers=other))["apps"]] == ["A1"]


# --- projects, roles -------------------------------------------------------------------------------------------------


async def test_another_projects_registry_does_not_exist(served: Served) -> None:
    await push(served, "v1", w="workflow")
    await post(served, f"{V1}/agents/register", AGENT)
    await post(served, f"{V1}/tools/register", TOOL)
    await post(served, "/internal/conversation/chat/add", {"agent_id": "a", "role": "user", "content": 1})
    await served.start()
    _, headers = await served.other_project()
    for path in ("workflows", "workflows/runs", "agents", "tools"):
        assert await get(served, path, headers=headers) == []
    for path in ("deployments/v1", "workflows/w", "agents/writer?deployment_id=v1", "tools/search?deployment_id=v1"):
        await get(served, path, 404, headers=headers)
    assert await get(served, "conversation/chat/get?agent_id=a", headers=headers) == {"messages": []}
    body = {"workflow_id": "w", "workflow_type": "workflow"}
    await post(served, f"{DEPLOYMENTS}/v1/workflows", body, 404, headers=headers)
    await post(served, DEPLOYMENTS, {"deployment_id": "v1"}, headers=headers)  # of its own
    assert await get(served, "workflows", headers=headers) == []


async def test_readers_register_nothing(served: Served) -> None:
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    await push(served, "v1", w="workflow")
    for path in ("workflows", "agents", "tools", "deployments/v1", "workflows/w", "slack/apps", "workflows/runs"):
        await get(served, path, headers=reader)
    for path in ("agents/register", "tools/register", "workers/deployments", "workers/queues", "slack/apps"):
        await post(served, f"{V1}/{path}", {}, 403, headers=reader)
