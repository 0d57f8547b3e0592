"""Who waits for which execution to end."""

from collections.abc import Callable

from msgspec import Raw

from perdure.store.interface import Ended
from perdure.wire.requests import Finished

Listener = Callable[[Finished], None]


class Endings:
    """Tells listeners of ends, with the result, the moment they are on disk. Who comes later asks the store."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], list[Listener]] = {}

    def listen(self, project_id: str, execution_id: str, listener: Listener) -> None:
        """Have the end told; listen first, then ask the store, so that no end falls between."""
        self._listeners.setdefault((project_id, execution_id), []).append(listener)

    def forget(self, project_id: str, execution_id: str, listener: Listener) -> None:
        """Stop listening. Harmless when the end was told meanwhile."""
        listeners = self._listeners.get((project_id, execution_id))
        if listeners is not None:
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                del self._listeners[project_id, execution_id]

    def tell(self, ended: Ended) -> None:
        """An execution has ended."""
        listeners = self._listeners.pop((ended.project_id, ended.execution_id), None)
        if not listeners:
            return
        finished = Finished(
            ended.execution_id,
            ended.phase,
            None if ended.result is None else Raw(ended.result),
            ended.error,
            None if ended.detail is None else Raw(ended.detail),
        )
        for listener in listeners:
            listener(finished)
