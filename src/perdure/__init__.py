"""Perdure runs workflows that must not lose their place: plain async functions whose every step is durable."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.sdk.base.errors import (
        BudgetExceeded,
        ChildCancelled,
        ChildFailed,
        ExecutionCancelled,
        ExecutionFailed,
        Fatal,
        RetryAfter,
        StepFailed,
    )
    from perdure.sdk.clients.client import Client, Handle
    from perdure.sdk.clients.executions import ExecutionInfo
    from perdure.sdk.workflows.children import ChildHandle, Mapped
    from perdure.sdk.workflows.context import Context
    from perdure.sdk.workflows.declared_schedules import Schedule
    from perdure.sdk.workflows.events import Event
    from perdure.sdk.workflows.start_options import Budget
    from perdure.sdk.workflows.steps import current_step, step
    from perdure.sdk.workflows.streams import StreamItem
    from perdure.sdk.workflows.triggers import EventTrigger
    from perdure.sdk.workflows.workflow import Queue, Registry, Workflow, workflow
    from perdure.wire.base.errors import (
        BadRequest,
        BadValue,
        Conflict,
        DeploymentNotFound,
        Forbidden,
        LaterOutcomes,
        NotCancellable,
        NotFound,
        PerdureError,
        SessionBusy,
        TooLarge,
        TooManyRequests,
        Unauthorized,
        Unavailable,
        UnknownOutcome,
        WorkflowNotFound,
    )
    from perdure.wire.base.retry import RetryPolicy
    from perdure.wire.clock.schedules import ScheduledFor
    from perdure.wire.clock.triggers import EventBatch, TopicEvent

__all__ = [
    "BadRequest",
    "BadValue",
    "Budget",
    "BudgetExceeded",
    "ChildCancelled",
    "ChildFailed",
    "ChildHandle",
    "Client",
    "Conflict",
    "Context",
    "DeploymentNotFound",
    "Event",
    "EventBatch",
    "EventTrigger",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionInfo",
    "Fatal",
    "Forbidden",
    "Handle",
    "LaterOutcomes",
    "Mapped",
    "NotCancellable",
    "NotFound",
    "PerdureError",
    "Queue",
    "Registry",
    "RetryAfter",
    "RetryPolicy",
    "Schedule",
    "ScheduledFor",
    "SessionBusy",
    "StepFailed",
    "StreamItem",
    "TooLarge",
    "TooManyRequests",
    "TopicEvent",
    "Unauthorized",
    "Unavailable",
    "UnknownOutcome",
    "Workflow",
    "WorkflowNotFound",
    "current_step",
    "step",
    "workflow",
]

# Each name is imported at its first use, so that `perdure --help`, which needs none of them, answers at once.
_HOMES = {
    "perdure.sdk.workflows.start_options": ("Budget",),
    "perdure.sdk.workflows.children": ("ChildHandle", "Mapped"),
    "perdure.sdk.clients.client": ("Client", "Handle"),
    "perdure.sdk.workflows.context": ("Context",),
    "perdure.sdk.base.errors": (
        "BudgetExceeded",
        "ChildCancelled",
        "ChildFailed",
        "ExecutionCancelled",
        "ExecutionFailed",
        "Fatal",
        "RetryAfter",
        "StepFailed",
    ),
    "perdure.sdk.workflows.events": ("Event",),
    "perdure.sdk.clients.executions": ("ExecutionInfo",),
    "perdure.sdk.workflows.declared_schedules": ("Schedule",),
    "perdure.sdk.workflows.steps": ("current_step", "step"),
    "perdure.sdk.workflows.streams": ("StreamItem",),
    "perdure.sdk.workflows.triggers": ("EventTrigger",),
    "perdure.sdk.workflows.workflow": ("Queue", "Registry", "Workflow", "workflow"),
    "perdure.wire.base.errors": (
        "BadRequest",
        "BadValue",
        "Conflict",
        "DeploymentNotFound",
        "Forbidden",
        "LaterOutcomes",
        "NotCancellable",
        "NotFound",
        "PerdureError",
        "SessionBusy",
        "TooLarge",
        "TooManyRequests",
        "Unauthorized",
        "Unavailable",
        "UnknownOutcome",
        "WorkflowNotFound",
    ),
    "perdure.wire.base.retry": ("RetryPolicy",),
    "perdure.wire.clock.schedules": ("ScheduledFor",),
    "perdure.wire.clock.triggers": ("EventBatch", "TopicEvent"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    raise AttributeError(f"module 'perdure' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
