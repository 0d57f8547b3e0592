"""Webhooks, and what was delivered to them."""

from enum import StrEnum

from msgspec import Struct


class Webhook(Struct, frozen=True):
    """A URL that hears of the ends of a project's executions."""

    id: str
    url: str
    workflow_id: str | None
    """The workflow whose ends it hears of; None: all."""
    description: str | None
    created_at_us: int


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up."""


class Delivery(Struct, frozen=True):
    """What one URL is told, or was told, of one end."""

    execution_id: str
    webhook_id: str
    """Empty for the URL that came with the execution."""
    url: str
    state: DeliveryState
    tries: int
    next_at_us: int | None
    created_at_us: int
    tried_at_us: int | None
    status: int | None
    """Of the last answer; None when none came."""
    answer: str | None
    """The beginning of the last answer, or why there is none."""

    @property
    def id(self) -> str:
        """Of the message: the same however often it is sent."""
        return delivery_id(self.execution_id, self.webhook_id)


def delivery_id(execution_id: str, webhook_id: str) -> str:
    """The id of the message that tells a URL of an end."""
    return f"{execution_id}.{webhook_id}" if webhook_id else execution_id
