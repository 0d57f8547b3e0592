"""Reports of push workers about their executions: steps, waits, ends."""

from msgspec import Struct

from perdure.server.bodies import VALUES
from perdure.server.routing import Call, Routes
from perdure.wire.access import Role
from perdure.wire.public import DONE, Done
from perdure.wire.public_push import (
    CompleteRequest,
    ConfirmCancellationRequest,
    FailRequest,
    ListedStepResponse,
    SavedStepResponse,
    SavedStepsResponse,
    SaveStepRequest,
    SetWaitingRequest,
    SetWaitingResponse,
    SpanIdRequest,
)

routes = Routes("Push workers")


@routes.post("/internal/executions/{execution_id}/complete", contract=True, body_bytes_max=VALUES)
async def complete_execution(call: Call, execution_id: str, body: CompleteRequest) -> Done:
    """End an execution with its result.

    409: the worker does not hold the execution any more, and has to stop.
    """
    await call.engine.push.complete(call.project_id, execution_id, body)
    return DONE


@routes.post("/internal/executions/{execution_id}/fail", contract=True, body_bytes_max=VALUES)
async def fail_execution(call: Call, execution_id: str, body: FailRequest) -> Done:
    """Report that an execution's code failed.

    The server tries it again, at most twice, unless `retryable` is false.
    """
    await call.engine.push.fail(call.project_id, execution_id, body)
    return DONE


@routes.post("/internal/executions/{execution_id}/confirm-cancellation", contract=True)
async def confirm_cancellation(call: Call, execution_id: str, body: ConfirmCancellationRequest) -> Done:
    """Report that the worker has stopped an execution.

    An execution that was not cancelled goes back to its queue, or ends if its run time is up.
    """
    await call.engine.push.confirm_cancellation(call.project_id, execution_id, body.worker_id)
    return DONE


@routes.post("/internal/executions/{execution_id}/wait", contract=True)
async def wait_execution(call: Call, execution_id: str, body: SetWaitingRequest) -> SetWaitingResponse:
    """Suspend an execution until a time, an event, or the answer to a suspended step."""
    await call.engine.push.wait(call.project_id, execution_id, body)
    return SetWaitingResponse(execution_id)


@routes.route("PUT", "/internal/executions/{execution_id}/otel-span-id", role=Role.WRITE, contract=True)
async def put_otel_span_id(call: Call, execution_id: str, body: SpanIdRequest) -> Done:
    """Store the span in which the next attempt goes on."""
    await call.engine.push.span_id(call.project_id, execution_id, body.otel_span_id)
    return DONE


@routes.post("/internal/executions/{execution_id}/steps", contract=True, body_bytes_max=VALUES)
async def save_step(call: Call, execution_id: str, body: SaveStepRequest) -> Done:
    """Record a step's outcome; the first one stands."""
    await call.engine.push.save_step(call.project_id, execution_id, body)
    return DONE


class SavedStepsQuery(Struct, frozen=True):
    after: str | None = None
    """Answer in pages: the steps after this key. Empty asks for the first page; an empty page is the last."""


@routes.get("/internal/executions/{execution_id}/steps", contract=True)
async def list_saved_steps(call: Call, execution_id: str, query: SavedStepsQuery) -> SavedStepsResponse:
    """All outcomes of an execution, by key.

    400 if they are too large for one answer: then ask with `after`.
    """
    steps = await call.engine.push.steps(call.project_id, execution_id, query.after)
    return SavedStepsResponse(
        [
            ListedStepResponse(step.key, step.outputs, step.error, step.success, step.source_execution_id)
            for step in steps
        ]
    )


@routes.get("/internal/executions/{execution_id}/steps/{step_key}", contract=True, rest=True)
async def get_saved_step(call: Call, execution_id: str, step_key: str) -> SavedStepResponse:
    """A step's outcome.

    404: the step has no outcome yet. The key may hold slashes as they are.
    """
    step = await call.engine.push.step(call.project_id, execution_id, step_key)
    return SavedStepResponse(
        step.key, step.outputs, step.error, step.success, step.source_execution_id, step.output_schema_name
    )
