"""Plain counters for the metrics page."""

from collections import deque


class Stats:
    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self.ended: dict[tuple[str, str, str], int] = {}
        """Final executions by (project, workflow, phase)."""
        self.claim_latency_seconds: deque[float] = deque(maxlen=1_000)
        """From creation to the first claim, for the latest claims."""
        self.timer_lag_seconds = 0.0
        self.old_snapshots = 0
        self.schedule_lag_seconds = 0.0

    def end(self, project_id: str, workflow_id: str, phase: str) -> None:
        key = (project_id, workflow_id, phase)
        self.ended[key] = self.ended.get(key, 0) + 1

    def count(self, what: str, amount: int = 1) -> None:
        self.counted[what] = self.counted.get(what, 0) + amount
