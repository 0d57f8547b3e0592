"""Listeners for the ends of executions."""

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Raw

from perdure.store.base.interface import EndNotice
from perdure.wire.runs.executions import Finished

Listener = Callable[[Finished], None]

RECENT_MAX = 10_000
RECENT_BYTES_MAX = 4_096


class EndListeners:
    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], list[Listener]] = {}
        self._recent: OrderedDict[tuple[str, str], Finished | None] = OrderedDict()

    def expect(self, project_id: str, execution_id: str) -> None:
        """Call before the execution starts. `recent` knows the end until other executions crowd it out."""
        self._recent[project_id, execution_id] = None
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    def stop_expecting(self, project_id: str, execution_id: str) -> None:
        """Call if the execution did not start."""
        self._recent.pop((project_id, execution_id), None)

    def recent(self, project_id: str, execution_id: str) -> tuple[bool, Finished | None]:
        """Whether the execution started here, and the end if known."""
        key = (project_id, execution_id)
        return key in self._recent, self._recent.get(key)

    def is_open(self, project_id: str, execution_id: str) -> bool:
        """True if the execution started here without an end so far."""
        return self.recent(project_id, execution_id) == (True, None)

    def listen(self, project_id: str, execution_id: str, listener: Listener) -> None:
        """Listen before asking the store, so that no end is missed."""
        self._listeners.setdefault((project_id, execution_id), []).append(listener)

    def forget(self, project_id: str, execution_id: str, listener: Listener) -> None:
        listeners = self._listeners.get((project_id, execution_id))
        if listeners is not None:
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                del self._listeners[project_id, execution_id]

    def awaited(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for project_id, execution_id in self._listeners:
            found.setdefault(project_id, []).append(execution_id)
        return found

    def ended_elsewhere(self, project_id: str, execution_id: str) -> bool:
        self.stop_expecting(project_id, execution_id)
        return (project_id, execution_id) in self._listeners

    def found(self, project_id: str, finished: Finished) -> None:
        for listener in self._listeners.pop((project_id, finished.id), ()):
            listener(finished)

    def tell(self, ended: EndNotice) -> None:
        key = (ended.project_id, ended.execution_id)
        listeners = self._listeners.pop(key, None)
        known = key in self._recent
        if not listeners and not known:
            return
        finished = Finished(
            ended.execution_id,
            ended.phase,
            None if ended.result is None else Raw(ended.result),
            ended.error,
            None if ended.detail is None else Raw(ended.detail),
        )
        if known:
            if ended.result is None or len(ended.result) <= RECENT_BYTES_MAX:
                self._recent[key] = finished
            else:
                del self._recent[key]
        for listener in listeners or ():
            listener(finished)
