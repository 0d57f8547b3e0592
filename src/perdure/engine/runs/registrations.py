"""Checks of workers' registrations."""

import asyncio
from typing import Final

from msgspec.json import encode

from perdure.wire.agents.definitions import DEFINITION_BYTES_MAX
from perdure.wire.base.codec import check_json, check_name, check_text
from perdure.wire.base.errors import BadValue, TooLarge
from perdure.wire.base.limits import REGISTERED_MAX, VARIABLES
from perdure.wire.base.operation import validated
from perdure.wire.runs.requests import RegisterRequest
from perdure.wire.runs.search_terms import check_fields
from perdure.wire.runs.workflows import (
    DESCRIBED_BYTES_MAX,
    DESCRIPTIONS_BYTES_MAX,
    SCHEMA_BYTES_MAX,
    WorkflowDescription,
    WorkflowType,
)

SCHEDULES_AT_ONCE: Final = 50
HOST_BYTES_MAX: Final = 255


async def check_registration(request: RegisterRequest) -> None:
    _check_counts(request)
    check_name(request.deployment_id, where="deployment_id")
    if request.host is not None:
        check_text(request.host, where="host", max_bytes=HOST_BYTES_MAX)
    _check_size(request)
    for spec in request.workflows:
        check_name(spec.id, where="workflows.id")
        check_fields(spec.searchable, "workflows.searchable")
        if spec.description is not None:
            _check_description(spec.description)
        if spec.agent is not None:
            if spec.type is not WorkflowType.AGENT or spec.agent.id != spec.id:
                raise BadValue(f"Workflow {spec.id!r}: `agent` must be the definition of that agent.")
            check_json(encode(spec.agent), where="workflows.agent", max_bytes=DEFINITION_BYTES_MAX)
    for queue in request.queues:
        check_name(queue.name, where="queues.name")
        for name in ("concurrency_limit", "total_limit"):
            limit = getattr(queue, name)
            if limit is not None and limit < 1:  # pausing a queue is an admin's
                raise BadValue(f"Queue {queue.name!r}: `{name}` must be at least 1, got {limit}.")
    if len({spec.id for spec in request.workflows}) != len(request.workflows):
        raise BadValue("`workflows` names a workflow twice; each id stands for one function.")
    await _check_schedules(request)
    _check_triggers(request)


def _check_description(given: WorkflowDescription) -> None:
    for name in ("input_schema", "output_schema"):
        schema = getattr(given, name)
        if schema is not None:
            check_json(memoryview(schema), where=f"workflows.description.{name}", max_bytes=SCHEMA_BYTES_MAX)
    for name in ("file", "text"):
        text = getattr(given, name)
        if text is not None:
            check_text(text, where=f"workflows.description.{name}", max_bytes=DESCRIBED_BYTES_MAX)
    if given.line is not None and not 0 <= given.line < 1 << 31:
        raise BadValue(f"workflows.description.line: must be 0 to 2,147,483,647, got {given.line}")


def _check_counts(request: RegisterRequest) -> None:
    for name in ("workflows", "queues", "schedules", "triggers"):
        count = len(getattr(request, name))
        if count > REGISTERED_MAX:
            raise BadValue(
                f"{name}: holds {count:,} entries; a registration may have {REGISTERED_MAX:,} "
                f"({VARIABLES['REGISTERED_MAX']}). Divide them among several projects, or raise the limit.",
                {"path": name},
            )


def _check_size(request: RegisterRequest) -> None:
    """Raises TooLarge."""
    given = [spec.description for spec in request.workflows if spec.description is not None]
    size = sum(len(part or b"") for one in given for part in (one.input_schema, one.output_schema, one.text))
    if size > DESCRIPTIONS_BYTES_MAX:
        raise TooLarge(
            f"workflows: the schemas and texts take {size:,} bytes; a registration may have "
            f"{DESCRIPTIONS_BYTES_MAX:,}. Use several deployments, or make the schemas smaller.",
            {"path": "workflows"},
        )


async def _check_schedules(request: RegisterRequest) -> None:
    workflows = {spec.id for spec in request.workflows}
    for n, spec in enumerate(request.schedules):
        if n % SCHEDULES_AT_ONCE == 0:
            await asyncio.sleep(0)  # a new expression takes up to 0.3 ms: others get a turn
        validated(spec)
        if spec.workflow_id not in workflows:
            raise BadValue(f"`schedules` names workflow {spec.workflow_id!r}, which is not among `workflows`.")
    if len({(spec.workflow_id, spec.key) for spec in request.schedules}) != len(request.schedules):
        raise BadValue("`schedules` names a schedule twice; those of one workflow need different keys.")


def _check_triggers(request: RegisterRequest) -> None:
    workflows = {spec.id for spec in request.workflows}
    for n, spec in enumerate(request.triggers):
        validated(spec, f"triggers[{n}].")
        if spec.workflow_id not in workflows:
            raise BadValue(f"`triggers` names workflow {spec.workflow_id!r}, which is not among `workflows`.")
    if len({(spec.workflow_id, spec.topic) for spec in request.triggers}) != len(request.triggers):
        raise BadValue("`triggers` names a trigger twice; a workflow has one for each topic.")
