"""What whoever follows a stream is given, and what that takes."""

from collections.abc import AsyncGenerator
from typing import cast

import pytest
from msgspec import Raw

from perdure.sdk.transports.transport import Transport
from perdure.sdk.workflows import streams
from perdure.wire.runs.executions import StreamItems
from perdure.wire.runs.streams import StreamItem

ID = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


class Emitting:
    """A transport that knows a single stream."""

    def __init__(self, *items: tuple[int, str, int]) -> None:
        self._items = items

    async def stream(self, op: StreamItems) -> AsyncGenerator[tuple[str, StreamItem], None]:
        for n, key, attempt in self._items:
            yield str(n), StreamItem(op.execution_id, n, 0, (), attempt, 1, key, "token", Raw(b"1"))


async def followed(*items: tuple[int, str, int]) -> list[tuple[int, bool]]:
    found = streams.follow(cast(Transport, Emitting(*items)), ID, None)
    return [(item.n, item.restarted) async for item in found]


async def test_each_item_comes_once_and_says_when_its_code_began_anew() -> None:
    items = ((1, "a", 1), (2, "a", 1), (2, "a", 1), (3, "b", 1), (4, "a", 2), (5, "a", 2), (6, "b", 2))
    assert await followed(*items) == [(1, False), (2, False), (3, False), (4, True), (5, False), (6, True)]


async def test_a_long_stream_is_remembered_as_far_as_its_newest_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PLACES_MAX", 2)
    items = ((1, "a", 1), (2, "b", 1), (3, "a", 1), (4, "c", 1), (5, "a", 2), (6, "c", 2), (7, "b", 2))
    assert await followed(*items) == [(n, n in (5, 6)) for n in range(1, 8)]
