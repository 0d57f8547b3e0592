"""A session's messages as objects. Callers get copies: a program's changes must not reach other runs or a replay."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import is_dataclass
from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Any, Final

from msgspec import Raw
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

KEPT_BYTES_MAX: Final = 16 << 20
"""Bytes of JSON kept. The objects take a few times as much."""
_FIXED: Final = frozenset({str, int, float, bool, NoneType, bytes, datetime, Decimal})


class History:
    """Messages by the address of their JSON: the worker's transcripts return the same objects for every turn, and
    comparing bytes would be slow. An address stays valid while the JSON is kept here."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._size = 0
        self._kept: dict[int, tuple[Raw, ModelMessage]] = {}
        self._lock = threading.Lock()  # workers in one process may have loops in different threads

    def messages(self, said: Sequence[Raw]) -> list[ModelMessage]:
        """Raises `pydantic.ValidationError`."""
        known = [self._kept.get(id(one)) for one in said]
        new = iter(self._parse_messages([one for one, found in zip(said, known, strict=True) if found is None]))
        return [next(new) if found is None else _copy(found[1]) for found in known]

    def _parse_messages(self, said: Sequence[Raw]) -> list[ModelMessage]:
        if not said:
            return []
        messages = ModelMessagesTypeAdapter.validate_json(b"[" + b",".join(map(bytes, said)) + b"]")
        with self._lock:
            for one, message in zip(said, messages, strict=True):
                if id(one) not in self._kept and _can_copy(message):
                    self._kept[id(one)] = one, _copy(message)
                    self._size += memoryview(one).nbytes
            while self._size > self._bytes_max:
                oldest, _ = self._kept.pop(next(iter(self._kept)))
                self._size -= memoryview(oldest).nbytes
        return messages


def message_json(message: ModelMessage) -> Raw:
    """An adapter for single messages would take 50 ms to build."""
    return Raw(ModelMessagesTypeAdapter.dump_json([message])[1:-1])


def _can_copy(value: Any) -> bool:
    kind: Any = type(value)
    if kind is list:
        parts = value
    elif kind is dict:
        parts = value.values()
    elif _is_plain(kind):
        parts = vars(value).values()
    else:
        return False
    return all(type(one) in _FIXED or _can_copy(one) for one in parts)


@functools.cache
def _is_plain(kind: type) -> bool:
    return is_dataclass(kind) and not any(vars(base).get("__slots__") for base in kind.__mro__)


def _copy(value: Any) -> Any:
    """Copies deeply. `copy.deepcopy` would take longer than parsing the JSON."""
    kind = type(value)
    if kind is list:
        return [one if type(one) in _FIXED else _copy(one) for one in value]
    fields = value.copy() if kind is dict else vars(value).copy()
    for name, one in fields.items():
        if type(one) not in _FIXED:
            fields[name] = _copy(one)
    if kind is dict:
        return fields
    made = object.__new__(kind)
    made.__dict__ = fields
    return made
