from enum import StrEnum
from typing import Final


class Rule(StrEnum):
    """The rules of admission, in their order. A worker gets a queued execution if all hold."""

    TURN = "turn"
    """Its turn in its session has come. A waiting turn starts at the end of time, so its condition is the next one."""
    START_TIME = "start_time"
    """Its start time has come."""
    DEPLOYMENT = "deployment"
    """The worker serves its deployment."""
    DEPLOYMENT_PAUSE = "deployment_pause"
    WORKFLOW_PAUSE = "workflow_pause"
    QUEUE_PAUSE = "queue_pause"
    KEY_PAUSE = "key_pause"
    RELEASING = "releasing"
    """The end of a pause has released it."""
    QUEUE_LIMIT = "queue_limit"
    KEY_LIMIT = "key_limit"
    """The queue's limit for one concurrency key."""
    WORKER = "worker"
    """A worker of its deployment is registered."""
    PYTHON = "python"
    """The worker runs the Python version of its first attempt."""
    PROTOCOL = "protocol"
    """The worker speaks a protocol that the execution needs."""
    CAPACITY = "capacity"
    """The worker has room."""
    ORDER = "order"
    """The executions before it leave room for it."""


PAUSES: Final = frozenset({Rule.DEPLOYMENT_PAUSE, Rule.WORKFLOW_PAUSE, Rule.QUEUE_PAUSE, Rule.KEY_PAUSE})
