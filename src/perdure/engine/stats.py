"""Plain counters that the desks keep and the metrics page reads."""

from collections import deque


class Stats:
    """Numbers since the start of this process."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        """By name: claimed, stale_rejections, deliveries_lost, executions_lost, poisoned, blocked, workers_lost …"""
        self.ended: dict[tuple[str, str, str], int] = {}
        """Executions that reached a final phase, by (project, workflow, phase)."""
        self.claim_latency_seconds: deque[float] = deque(maxlen=1_000)
        """From created to first handed out, of the latest claims."""
        self.timer_lag_seconds = 0.0
        """How late the latest due timers were woken."""
        self.old_snapshots = 0
        """Old snapshots of the database that others hold (`engine/snapshots.py`)."""
        self.schedule_lag_seconds = 0.0
        """How late the latest due schedules were fired."""

    def end(self, project_id: str, workflow_id: str, phase: str) -> None:
        key = (project_id, workflow_id, phase)
        self.ended[key] = self.ended.get(key, 0) + 1

    def count(self, what: str, amount: int = 1) -> None:
        self.counted[what] = self.counted.get(what, 0) + amount
