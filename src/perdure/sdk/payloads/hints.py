import collections.abc
import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from msgspec import Struct

_AWAITABLES: Final = (collections.abc.Coroutine, collections.abc.Awaitable)


class Unannotated(Struct, frozen=True):
    fn: Callable[..., Any]
    parameter: str | None = None
    """None for the result."""

    def advice(self) -> str:
        function = _function(self.fn)
        name = f"{function.__qualname__}()"
        if self.parameter is not None:
            return f"annotate parameter {self.parameter!r} of {name}"
        if isinstance(function, types.FunctionType) and function.__name__ != "<lambda>":
            return f"annotate the return type of {name}"
        return f"call {name} in a function of your own and annotate the return type of that"


class Hints(NamedTuple):
    input: Any
    result: Any
    takes_input: bool
    has_default: bool = False


def read_hints(fn: Callable[..., Any], *, context: bool = True) -> Hints:
    """The input is the second parameter, or the first with `context=False`. Other annotations are not resolved, so a
    Context may be imported under TYPE_CHECKING. `TypeError` names an unresolvable annotation."""
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a builtin without a signature, like max
        return Hints(input=Any, result=Unannotated(fn), takes_input=True)
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    inputs = positional[1 if context else 0 :]
    rest = next((one for one in signature.parameters.values() if one.kind is one.VAR_POSITIONAL), None)
    if not inputs and rest is not None:
        # The input goes into `*args`. If the context does as well, as in a decorator's wrapper, their hint is not the
        # input's.
        inputs = [rest if positional or not context else rest.replace(annotation=Any)]
    hint = _resolve(fn, inputs[0].name, inputs[0].annotation) if inputs else Any
    result = _resolve(fn, None, signature.return_annotation)
    if not inspect.iscoroutinefunction(fn) and typing.get_origin(result) in _AWAITABLES:
        result = typing.get_args(result)[-1]
    has_default = bool(inputs) and (
        inputs[0].default is not inspect.Parameter.empty or inputs[0].kind is inputs[0].VAR_POSITIONAL
    )
    return Hints(input=hint, result=result, takes_input=bool(inputs), has_default=has_default)


def _resolve(fn: Callable[..., Any], parameter: str | None, annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return Unannotated(fn, parameter)
    function = _function(fn)
    names = {parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            names[name] = cell.cell_contents

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), names, include_extras=True)["it"]
    except Exception as error:  # an annotation may raise anything
        place = "the result" if parameter is None else f"parameter {parameter!r}"
        raise TypeError(
            f"The type hint {annotation!r} of {place} of {function.__qualname__}() cannot be resolved: {error}. "
            "Values are read by their type hints, so the types must be there at run time, in the function's own module "
            "(not only under TYPE_CHECKING, nor inside another function)."
        ) from None


def _function(fn: Any) -> Any:
    fn = inspect.unwrap(fn)
    if isinstance(fn, functools.partial):
        return _function(fn.func)
    if inspect.ismethod(fn):
        return _function(fn.__func__)
    return fn if hasattr(fn, "__qualname__") else _function(type(fn).__call__)
