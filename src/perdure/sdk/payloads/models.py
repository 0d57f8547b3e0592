"""Pydantic models, if the user has them."""

import functools
import sys
from collections.abc import Iterator
from typing import Any

from perdure.sdk.payloads.faults import Fault, below


def is_model_type(type_: object) -> bool:
    # Whoever has a model has imported pydantic; nobody else should pay for that import.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


def validate(model: Any, data: bytes) -> Any:
    """Our own JSON has field names; another client's may have aliases, so both are read."""
    try:
        return model.model_validate_json(data, by_alias=True, by_name=True)
    except TypeError:
        version: str = sys.modules["pydantic"].VERSION
        if tuple(map(int, version.split(".")[:2])) < (2, 11):
            raise Fault("", f"models need pydantic 2.11 or later; this is {version}") from None
        raise
    except ValueError as error:
        list_errors = getattr(error, "errors", None)
        if list_errors is None:
            raise
        first = list_errors(include_url=False, include_context=False, include_input=False)[0]
        raise Fault(functools.reduce(below, first["loc"], ""), first["msg"]) from None


def secrets_in(value: Any, path: str) -> Iterator[str]:
    """Where pydantic's SecretStr and the like lie in a model."""
    if hasattr(value, "get_secret_value"):
        yield path
    elif is_model_type(type(value)):
        for name, part in value.__dict__.items():
            yield from secrets_in(part, below(path, name))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from secrets_in(part, below(path, index))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from secrets_in(part, below(path, key))
