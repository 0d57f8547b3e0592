"""The document that the routes write, against the contract's shapes and against what is served."""

import json
import re
from datetime import datetime
from typing import Any

import pytest
from tests.server.serving import Served

from perdure.server import schemas
from perdure.server.app import all_routes
from perdure.wire import public, requests

# The contract's request and reply shapes for the routes that are served: required fields, then all others.
CONTRACT: dict[str, tuple[set[str], set[str]]] = {
    "HealthResponse": ({"status"}, set()),
    "ErrorResponse": ({"error", "error_type"}, set()),
    "SubmitWorkflowRequest": (
        {"payload"},
        {
            "deployment_id",
            "parent_execution_id",
            "root_execution_id",
            "step_key",
            "queue_name",
            "concurrency_key",
            "queue_concurrency_limit",
            "wait_for_subworkflow",
            "session_id",
            "user_id",
            "otel_traceparent",
            "initial_state",
            "run_timeout_seconds",
            "channel_context",
        },
    ),
    "SubmitWorkflowResponse": ({"execution_id", "created_at"}, set()),
    "WorkflowRequest": (
        {"workflow_id", "payload"},
        {"queue_name", "concurrency_key", "queue_concurrency_limit", "initial_state", "run_timeout_seconds"},
    ),
    "SubmitWorkflowsRequest": (
        {"workflows"},
        {
            "deployment_id",
            "step_key",
            "parent_execution_id",
            "root_execution_id",
            "session_id",
            "user_id",
            "wait_for_subworkflow",
            "otel_traceparent",
            "channel_context",
        },
    ),
    "SubmitWorkflowsResponse": ({"executions"}, set()),
    "ExecutionResponse": (
        {"id", "workflow_id", "status", "payload", "created_at", "retry_count"},
        {
            "result",
            "error",
            "started_at",
            "completed_at",
            "deployment_id",
            "assigned_to_worker",
            "parent_execution_id",
            "root_execution_id",
            "step_key",
            "queue_name",
            "concurrency_key",
            "batch_id",
            "session_id",
            "user_id",
            "output_schema_name",
            "cancelled_at",
            "cancelled_by",
            "run_timeout_seconds",
        },
    ),
    "CancelExecutionResponse": ({"execution_id", "status", "cancelled_at"}, set()),
    "EventData": ({"data"}, {"event_type", "execution_id", "attempt_number"}),
    "PublishEventRequest": ({"topic", "events"}, {"durable", "execution_id", "root_execution_id"}),
    "PublishEventResponse": ({"sequence_ids", "created_at"}, set()),
    "EventResponse": ({"id", "sequence_id", "topic", "data", "created_at"}, {"event_type"}),
    "ApiKeyResponse": ({"id", "name", "last_four_digits", "created_at"}, {"last_used_at"}),
    "CreateApiKeyRequest": ({"name", "project_id"}, set()),
    "CreateApiKeyResponse": ({"id", "name", "key", "last_four_digits", "created_at"}, {"last_used_at"}),
    "MessageResponse": ({"message"}, set()),
    "WorkerStatusResponse": ({"has_workers", "online_count"}, set()),
    "RegisterWorkerRequest": (
        {"project_id"},
        {"mode", "push_endpoint_url", "capabilities", "max_concurrent_executions", "deployment_id"},
    ),
    "RegisterWorkerResponse": ({"worker_id"}, set()),
    "HeartbeatResponse": ({"re_register"}, set()),
    "ActiveWorkersResponse": ({"worker_ids"}, set()),
    "PollWorkflowResponse": (
        {"created_at", "execution_id", "payload", "retry_count", "workflow_id"},
        {
            "deployment_id",
            "parent_execution_id",
            "root_execution_id",
            "step_key",
            "session_id",
            "user_id",
            "otel_traceparent",
            "otel_span_id",
            "initial_state",
        },
    ),
    "GetEventsResponse": ({"events", "has_more"}, {"next_sequence_id"}),
    "CreateScheduleRequest": ({"workflow_id", "cron", "timezone", "key"}, set()),
    "CreateScheduleResponse": ({"schedule_id"}, set()),
    "ScheduleResponse": (
        {"id", "workflow_id", "cron", "timezone", "key", "status", "next_run_at", "created_at", "updated_at"},
        {"last_run_at"},
    ),
    "GetSchedulesResponse": ({"schedules"}, set()),
    "GetScheduledWorkflowsResponse": ({"workflow_ids"}, set()),
}
OPERATIONS = {
    "health",
    "submit_workflow",
    "submit_workflows",
    "get_execution",
    "cancel_execution",
    "publish_event",
    "get_events",
    "stream_events",
    "get_worker_status",
    "register_worker",
    "worker_online",
    "worker_heartbeat",
    "get_active_workers",
    "poll_workflow",
    "get_api_keys",
    "create_api_key",
    "delete_api_key",
    "create_schedule",
    "get_scheduled_workflows",
    "get_schedules_for_workflow",
}
ADDED = {"key", "phase", "attempt", "tags", "progress", "forked_from", "forked_at_step"}


@pytest.fixture
async def document(served: Served) -> Any:
    reply = await served.client.get("/openapi.json", headers={"authorization": ""})
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


@pytest.mark.parametrize("name", CONTRACT)
async def test_the_contracts_shapes_are_kept(document: Any, name: str) -> None:
    schema = document["components"]["schemas"][name]
    required, others = CONTRACT[name]
    assert set(schema["required"]) == required
    assert others <= set(schema["properties"])
    assert "additionalProperties" not in schema
    for field in others:
        kind = schema["properties"][field].get("type")
        assert kind is None or "null" in kind, f"{name}.{field} may be null"
    for field in required:
        assert "null" not in schema["properties"][field].get("type", ""), f"{name}.{field} is never null"


async def test_types_and_formats_are_the_contracts(document: Any) -> None:
    found = document["components"]["schemas"]["ExecutionResponse"]["properties"]
    assert found["created_at"] == {"type": "string", "format": "date-time"}
    assert found["completed_at"] == {"type": ["string", "null"], "format": "date-time"}
    assert found["id"]["format"] == "uuid"
    assert (found["retry_count"]["type"], found["retry_count"]["format"]) == ("integer", "int32")
    assert found["payload"] == {} and found["result"] == {}
    assert set(found) >= ADDED


async def test_operations_keep_their_names(document: Any) -> None:
    named = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert named >= OPERATIONS
    assert len(named) == len(all_routes())


async def test_what_is_documented_is_whole(document: Any) -> None:
    text = json.dumps(document)
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert document["components"]["schemas"][reference]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and not operation["summary"].endswith(".")
            names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
            assert names == re.findall(r"\{(\w+)\}", path)
            assert any(status.startswith("2") for status in operation["responses"])


async def test_an_execution_has_every_field(served: Served) -> None:
    id = await served.start()
    found = (await served.client.get(f"/api/v1/executions/{id}")).json()
    required, others = CONTRACT["ExecutionResponse"]
    assert set(found) == required | others | ADDED


async def test_the_page_names_every_route_and_loads_nothing(served: Served) -> None:
    reply = await served.client.get("/docs", headers={"authorization": ""})
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for route in all_routes():
        assert route.path.replace("{", "{") in reply.text
        assert route.name in reply.text
    assert "<script" not in reply.text and "http://" not in reply.text and "https://" not in reply.text


def test_field_notes_come_from_the_source() -> None:
    notes = schemas.field_notes(requests.OpenWait)
    assert notes["data"] == "What a suspended step shows to whoever answers it." and set(notes) == {
        "data",
        "expires_at_us",
    }
    assert schemas.field_notes(requests.BeatRequest) == {}


def test_times_are_exact() -> None:
    for at_us in (0, 1, 999_999, 1_750_000_000_000_001, 253_402_300_799_999_999):
        text = public.rfc3339(at_us)
        assert public.microseconds(datetime.fromisoformat(text)) == at_us
        assert text.endswith("+00:00") and len(text) == 32
