from enum import StrEnum
from typing import Final


class Rule(StrEnum):
    """The rules of admission, in order. A worker gets a queued execution if all rules hold."""

    TURN = "turn"
    """The execution's turn in the session has come. A waiting turn starts at the end of time, so the condition is that
    of `start_time`."""
    START_TIME = "start_time"
    """The start time has come."""
    DEPLOYMENT = "deployment"
    """The worker serves the execution's deployment."""
    DEPLOYMENT_PAUSE = "deployment_pause"
    WORKFLOW_PAUSE = "workflow_pause"
    QUEUE_PAUSE = "queue_pause"
    KEY_PAUSE = "key_pause"
    RELEASING = "releasing"
    """The end of a pause has released the execution."""
    QUEUE_LIMIT = "queue_limit"
    KEY_LIMIT = "key_limit"
    """The queue's limit per concurrency key leaves room."""
    WORKER = "worker"
    """A worker of the execution's deployment is registered."""
    PYTHON = "python"
    """The worker runs the Python version of the first attempt."""
    PROTOCOL = "protocol"
    """The worker speaks the protocol needed by the execution."""
    CAPACITY = "capacity"
    """The worker has room."""
    ORDER = "order"
    """Earlier executions leave room."""


PAUSES: Final = frozenset({Rule.DEPLOYMENT_PAUSE, Rule.WORKFLOW_PAUSE, Rule.QUEUE_PAUSE, Rule.KEY_PAUSE})
