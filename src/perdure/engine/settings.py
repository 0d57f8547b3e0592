"""The engine's settings, each with its unit and default."""

from msgspec import Struct


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Times in seconds unless the name says otherwise."""

    lease_seconds: float = 12.0
    """How long a worker may be silent before its work is handed to others."""
    beat_seconds: float = 3.0
    """How often a worker renews its lease."""
    grace_seconds: float = 30.0
    """How long a cancelled execution may clean up before it is overruled."""
    poll_seconds: float = 1.0
    """How often the store is asked when no hint came."""
    retention_days: float = 30.0
    """How long final executions are kept."""
    retention_workflows: dict[str, float] = {}
    """Days by workflow id, where they differ."""
    idempotency_hours: float = 24.0
    """How long the answers to Idempotency-Keys are kept."""
