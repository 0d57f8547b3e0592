"""Perdure runs workflows that must not lose their place: plain async functions whose every step is durable."""

from perdure.sdk.client import Client, Handle
from perdure.sdk.context import ChildHandle, Context, Event, Mapped, current_step
from perdure.sdk.errors import (
    ChildCancelled,
    ChildFailed,
    ExecutionCancelled,
    ExecutionFailed,
    Fatal,
    RetryAfter,
    StepFailed,
)
from perdure.sdk.workflow import Queue, Registry, Workflow, step, workflow
from perdure.wire.errors import PerdureError
from perdure.wire.retry import RetryPolicy

__all__ = [
    "ChildCancelled",
    "ChildFailed",
    "ChildHandle",
    "Client",
    "Context",
    "Event",
    "ExecutionCancelled",
    "ExecutionFailed",
    "Fatal",
    "Handle",
    "Mapped",
    "PerdureError",
    "Queue",
    "Registry",
    "RetryAfter",
    "RetryPolicy",
    "StepFailed",
    "Workflow",
    "current_step",
    "step",
    "workflow",
]
