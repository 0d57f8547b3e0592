"""Perdure runs workflows that must not lose their place: plain async functions whose every step is durable."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.sdk.children import ChildHandle, Mapped
    from perdure.sdk.client import Client, Handle
    from perdure.sdk.context import Context
    from perdure.sdk.declared_schedules import Schedule
    from perdure.sdk.errors import (
        BudgetExceeded,
        ChildCancelled,
        ChildFailed,
        ExecutionCancelled,
        ExecutionFailed,
        Fatal,
        RetryAfter,
        StepFailed,
    )
    from perdure.sdk.events import Event
    from perdure.sdk.executions import ExecutionInfo
    from perdure.sdk.start_options import Budget
    from perdure.sdk.steps import current_step, step
    from perdure.sdk.streams import StreamItem
    from perdure.sdk.triggers import EventTrigger
    from perdure.sdk.workflow import Queue, Registry, Workflow, workflow
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
    "perdure.sdk.start_options": ("Budget",),
    "perdure.sdk.children": ("ChildHandle", "Mapped"),
    "perdure.sdk.client": ("Client", "Handle"),
    "perdure.sdk.context": ("Context",),
    "perdure.sdk.errors": (
        "BudgetExceeded",
        "ChildCancelled",
        "ChildFailed",
        "ExecutionCancelled",
        "ExecutionFailed",
        "Fatal",
        "RetryAfter",
        "StepFailed",
    ),
    "perdure.sdk.events": ("Event",),
    "perdure.sdk.executions": ("ExecutionInfo",),
    "perdure.sdk.declared_schedules": ("Schedule",),
    "perdure.sdk.steps": ("current_step", "step"),
    "perdure.sdk.streams": ("StreamItem",),
    "perdure.sdk.triggers": ("EventTrigger",),
    "perdure.sdk.workflow": ("Queue", "Registry", "Workflow", "workflow"),
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
