"""`agent.override(model=TestModel())` for durable agents.

Workflow code and steps have their own contexts, with the overrides around the worker's start. A start under other
overrides is refused, since the run would call the real model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.models import Model

from perdure.sdk.base.errors import Misplaced


class Overrides:
    def __init__(self, agent: AbstractAgent[Any, Any]) -> None:
        while isinstance(agent, WrapperAgent):
            agent = agent.wrapped
        # The library keeps each in a context variable and has no public way to ask.
        found = [one for one in vars(agent).values() if isinstance(one, ContextVar)]
        self._all: tuple[ContextVar[Any], ...] = tuple(found)
        self._model = next((one for one in found if one.name == "_override_model"), None)

    def model(self) -> Model | str | None:
        """None: the agent's own."""
        given = None if self._model is None else self._model.get()
        found: Model | str | None = None if given is None else given.value
        return found

    @contextmanager
    def as_in(self, outside: Mapping[ContextVar[Any], Any]) -> Iterator[bool]:
        """Yields whether overrides exist."""
        given = [(one, outside[one]) for one in self._all if outside.get(one) is not None]
        tokens = [(one, one.set(value)) for one, value in given]
        try:
            yield bool(given)
        finally:
            for one, token in tokens:
                one.reset(token)

    def check_start(self, name: str, outside: Mapping[ContextVar[Any], Any] | None) -> None:
        """Raises `Misplaced` if an override here does not hold in `outside`."""
        here = copy_context()
        given = [one for one in self._all if here.get(one) is not None]
        if not given:
            return
        said = f"agent.override(…) holds where a run of {name!r} is started, but not where it runs"
        if outside is None:
            warnings.warn(f"{said}, unless its worker was also started inside the override.", stacklevel=4)
        elif any(outside.get(one) is not here[one] for one in given):
            raise Misplaced(
                f"{said}: the agent would ask its own model. Start the worker inside the override: "
                "`async with embedded(…)` within `with agent.override(…)`."
            )
