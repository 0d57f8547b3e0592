"""`agent.override(model=TestModel())`: how the library has an agent tested, and where that holds for a durable one.

An override holds in the code that runs inside of its `with`. Workflow code and steps run in contexts of their own, so
what counts for them is what held around their worker when it was started: an embedded one, inside of the `with`. A
start from where other overrides hold than around the worker is refused, since the real model would be asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.models import Model

from perdure.sdk.errors import Misplaced

if TYPE_CHECKING:
    from perdure.sdk.worker import Worker


class Overrides:
    """What may be overridden of one agent."""

    def __init__(self, agent: AbstractAgent[Any, Any]) -> None:
        while isinstance(agent, WrapperAgent):
            agent = agent.wrapped
        # The library keeps each in a context variable of the agent, and has no other way to ask for them.
        found = [one for one in vars(agent).values() if isinstance(one, ContextVar)]
        self._all: tuple[ContextVar[Any], ...] = tuple(found)
        self._model = next((one for one in found if one.name == "_override_model"), None)

    def model(self) -> Model | str | None:
        """The model that is to be asked here instead of the agent's; None: the agent's own."""
        given = None if self._model is None else self._model.get()
        found: Model | str | None = None if given is None else given.value
        return found

    @contextmanager
    def as_in(self, outside: Mapping[ContextVar[Any], Any]) -> Iterator[bool]:
        """While the block runs, what is overridden there is here; gives whether anything is."""
        given = [(one, outside[one]) for one in self._all if outside.get(one) is not None]
        tokens = [(one, one.set(value)) for one, value in given]
        try:
            yield bool(given)
        finally:
            for one, token in tokens:
                one.reset(token)

    def check_start(self, name: str, worker: Worker | None) -> None:
        """Raises `Misplaced` when what is overridden where a run is started is not so around its worker; warns when
        that worker is elsewhere."""
        here = copy_context()
        given = [one for one in self._all if here.get(one) is not None]
        if not given:
            return
        said = f"agent.override(…) holds where a run of {name!r} is started, and not where it runs"
        if worker is None:
            warnings.warn(f"{said}, unless its worker was started inside of it, too.", stacklevel=4)
        elif any(worker.outside.get(one) is not here[one] for one in given):
            raise Misplaced(
                f"{said}: the agent would ask its own model. Start the worker inside of it: "
                "`with agent.override(…):`, and in that `async with embedded(…)`."
            )
