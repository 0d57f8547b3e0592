"""An engine for a store that this process only reads."""

from perdure.engine.engine import Engine
from perdure.engine.loops import Loop


class ReadingEngine(Engine):
    """It looks for changes of other processes on behalf of its waits, and has no duties."""

    def loops(self) -> list[Loop]:
        return [Loop("look", self.fallback_poller.look)]
