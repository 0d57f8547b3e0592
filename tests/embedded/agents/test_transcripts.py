"""Transcripts in workflow code: read alike in every replay, added to once; messages that are delivered; turns."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw
from tests.embedded.house import Counter, House, reaches, rows_of

from perdure.sdk.base.errors import ChildFailed, ExecutionFailed
from perdure.sdk.transcripts import append_messages, read_transcript, summarize, take_messages
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.testing import crash_everywhere
from perdure.wire.agents.transcripts import GetTranscript, Page
from perdure.wire.base.errors import BadValue, Conflict, SessionBusy
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


def as_raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def values(messages: list[Raw]) -> list[Any]:
    return [json.loads(bytes(message)) for message in messages]


async def test_turns_of_one_session_at_once_lose_nothing_and_see_all_before_them(house: House) -> None:
    app = Registry()

    @app.workflow
    async def say(ctx: Context, text: str) -> list[str]:
        found = await read_transcript(ctx)
        reply = await ctx.step("model", lambda: f"to {text}")
        await append_messages(ctx, [as_raw(text), as_raw(reply)], version=found.version)
        return values(found.messages)

    async with house.open(app) as p:
        handles = await asyncio.gather(
            *(p.start(say, f"turn {n}", session_id="s", on_conflict="queue") for n in range(8))
        )
        seen = await asyncio.gather(*(handle.result() for handle in handles))
        said = values([entry.message for entry in (await p.transcript("s")).entries])
        assert sorted(said[::2]) == [f"turn {n}" for n in range(8)]
        assert said[1::2] == [f"to {text}" for text in said[::2]]
        assert sorted(map(len, seen)) == [2 * n for n in range(8)]
        assert all(said[: len(one)] == one for one in seen)


async def test_messages_are_any_values_that_json_can_hold(house: House) -> None:
    app = Registry()

    @app.workflow
    async def say(ctx: Context, text: str) -> None:
        version = await append_messages(ctx, ["old", {"role": "user", "content": text}, as_raw([1])])
        await summarize(ctx, {"summary": text}, version - 2)
        with pytest.raises(BadValue, match=r"messages\[1\].*nan"):
            await append_messages(ctx, [1, float("nan")])
        with pytest.raises(BadValue, match="summary"):
            await summarize(ctx, object(), version)

    async with house.open(app) as p:
        await (await p.start(say, "hello", session_id="s")).result()
        said = values([entry.message for entry in (await p.transcript("s")).entries])
        assert said == [{"summary": "hello"}, {"role": "user", "content": "hello"}, [1]]


async def test_a_child_may_be_a_turn_of_a_session_of_its_own(house: House) -> None:
    app = Registry()

    @app.workflow
    async def say(ctx: Context, text: str) -> str:
        return f"said {text}"

    @app.workflow
    async def asks(ctx: Context) -> Any:
        return await ctx.suspend("approve")

    @app.workflow
    async def parent(ctx: Context) -> list[str]:
        with pytest.raises(ChildFailed, match="has its turn") as refused:
            await ctx.run_child(say, "one", session_id="s", on_conflict="reject")
        assert refused.value.type == SessionBusy.code
        waits = await ctx.start_child(say, "two", session_id="s", on_conflict="queue")
        await ctx.suspend("go on")
        return [await waits.result()]

    async with house.open(app) as p:
        open_ = await p.start(asks, session_id="s", on_conflict="queue")
        handle = await p.start(parent)
        await reaches(handle, Phase.WAITING)
        await handle.resume("go on")
        await reaches(handle, Phase.WAITING)
        await open_.resume("approve")
        assert await handle.result() == ["said two"]


async def test_what_was_read_is_read_again_in_a_replay(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def reads(ctx: Context) -> list[Any]:
        found = await read_transcript(ctx, "s")
        await ctx.suspend("go on")
        count("went on")
        again = await read_transcript(ctx, "s")
        return [values(found.messages), values(again.messages)]

    @app.workflow
    async def sums_up(ctx: Context) -> None:
        found = await read_transcript(ctx, "s")
        await summarize(ctx, as_raw("so far"), found.entries[-2].seq, session_id="s", version=found.version)

    async with house.open(app) as p:
        assert await p.append_messages("s", ["a", "b", "c"]) == 3
        handle = await p.start(reads)
        await reaches(handle, Phase.WAITING)
        await (await p.start(sums_up)).result()
        assert await p.append_messages("s", ["d"], version=4) == 5
    async with house.open(app) as p:  # the new process' worker has read nothing yet
        handle = p.handle(handle.id, reads)
        await handle.resume("go on")
        assert await handle.result() == [["a", "b", "c"], ["so far", "c", "d"]]
        assert count["went on"] == 1
        assert [entry.seq for entry in (await p.transcript("s")).entries] == [4, 3, 5]
        assert all(b'"a"' not in bytes(row.value) for row in await rows_of(handle) if row.kind is Kind.TRANSCRIPT)


async def test_whoever_comes_too_late_is_told(house: House) -> None:
    app = Registry()

    @app.workflow
    async def late(ctx: Context) -> list[Any]:
        found = await read_transcript(ctx)
        await append_messages(ctx, [as_raw(1)])
        try:
            await append_messages(ctx, [as_raw(2)], version=found.version)
        except Conflict:
            return [await append_messages(ctx, [as_raw(3)]), values((await read_transcript(ctx)).messages)]
        return []

    async with house.open(app) as p:
        assert await (await p.start(late, session_id="s")).result() == [2, [1, 3]]
        with pytest.raises(Conflict):
            await p.append_messages("s", [4], version=1)


async def test_a_message_is_delivered_to_the_turn_that_works_and_ends_with_it(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def agent(ctx: Context, text: str) -> str:
        found = await read_transcript(ctx)
        if found.taken_by is not None:
            assert found.result is not None
            return f"with the other: {json.loads(bytes(found.result))}"
        heard = [text]
        while "that is all" not in heard:
            if text == "first":
                await ctx.suspend(f"more {len(heard)}")
            for taken in await take_messages(ctx):
                count(json.loads(bytes(taken.message)))
                heard.append(json.loads(bytes(taken.message)))
            if text != "first":
                break
        await append_messages(ctx, [as_raw(one) for one in heard])
        return " and ".join(heard)

    async with house.open(app) as p:
        turn: dict[str, Any] = {"session_id": "s", "on_conflict": "deliver"}
        first = await p.start(agent, "first", **turn)
        await reaches(first, Phase.WAITING)
        with pytest.raises(SessionBusy, match=first.id):
            await p.start(agent, "rejected", session_id="s", on_conflict="reject")
        second = await p.start(agent, "second", **turn)
        await first.resume("more 1")
        await reaches(first, Phase.WAITING)
        third = await p.start(agent, "that is all", **turn)
        queued = await p.start(agent, "next", session_id="s", on_conflict="queue")
        assert (await queued.get()).phase is Phase.QUEUED
        await first.resume("more 2")
        assert await first.result() == "first and second and that is all"
        for handle in (second, third):
            assert await handle.result() == "with the other: first and second and that is all"
        assert await queued.result() == "next"
        said = values([entry.message for entry in (await p.transcript("s")).entries])
        assert said == ["first", "second", "that is all", "next"]
        rows = [row.name for row in await rows_of(first) if row.kind is Kind.TRANSCRIPT]
        assert rows == ["read", "take", "take", "append"]


async def test_a_session_that_was_erased_begins_anew(house: House) -> None:
    app = Registry()

    @app.workflow
    async def reads(ctx: Context) -> list[Any]:
        return values((await read_transcript(ctx, "s")).messages)

    async with house.open(app) as p:
        await p.append_messages("s", ["secret", "and more"])
        assert await (await p.start(reads)).result() == ["secret", "and more"]
        await p.erase(session_id="s")
        assert await (await p.start(reads)).result() == []
        await p.append_messages("s", ["new", "and newer"])  # under the same numbers
        assert await (await p.start(reads)).result() == ["new", "and newer"]


async def test_a_transcript_that_was_erased_cannot_be_read_again(house: House) -> None:
    app = Registry()

    @app.workflow
    async def reads(ctx: Context) -> None:
        await read_transcript(ctx, "s")

    async with house.open(app) as p:
        await p.append_messages("s", ["a"])
        p.worker.transcripts._transport = _Forgetful(p._transport)  # type: ignore[assignment]
        with pytest.raises(ExecutionFailed, match="is gone"):
            await (await p.start(reads)).result()


class _Forgetful:
    """A server whose transcripts were erased between a read and its fetch."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def call(self, op: GetTranscript) -> Page:
        page = await self._transport.call(op)
        return Page(page.version, [], page.next)


async def test_a_crash_anywhere_adds_nothing_twice_and_loses_nothing() -> None:
    app = Registry()

    @app.workflow
    async def talks(ctx: Context, text: str) -> list[Any]:
        found = await read_transcript(ctx)
        await append_messages(ctx, [as_raw(text)], version=found.version)
        reply = await ctx.step("model", lambda: f"to {text}")
        await append_messages(ctx, [as_raw(reply)])
        await summarize(ctx, as_raw("so far"), 1)
        return values((await read_transcript(ctx)).messages)

    report = await crash_everywhere(talks, "hello", registry=app, session_id="s", on_conflict="queue")
    assert report.result == ["so far", "to hello"]
    assert len(report.crashes) > 10
