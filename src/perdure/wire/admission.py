from enum import StrEnum


class Rule(StrEnum):
    """The rules of admission, in their order. A worker gets a queued execution if all hold."""

    START_TIME = "start_time"
    """Its start time has come, and its turn in its session."""
    DEPLOYMENT = "deployment"
    """The worker serves its deployment."""
    QUEUE_LIMIT = "queue_limit"
    KEY_LIMIT = "key_limit"
    """The queue's limit for one concurrency key."""
    PYTHON = "python"
    """The worker runs the Python version of its first attempt."""
    PROTOCOL = "protocol"
    """The worker speaks a protocol that the execution needs."""
