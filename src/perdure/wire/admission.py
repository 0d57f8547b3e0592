from enum import StrEnum


class Rule(StrEnum):
    """The rules of admission, in their order. A worker gets a queued execution if all hold."""

    TURN = "turn"
    """Its turn in its session has come. A waiting turn starts at the end of time, so its condition is the next one."""
    START_TIME = "start_time"
    """Its start time has come."""
    DEPLOYMENT = "deployment"
    """The worker serves its deployment."""
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
