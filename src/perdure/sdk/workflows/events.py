from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
from msgspec import Raw

from perdure.sdk.base.checks import checked_int, checked_name
from perdure.sdk.payloads.errors import error_from_json
from perdure.sdk.payloads.fingerprints import LATEST, fingerprint, fingerprint_of_call, token, with_tokens
from perdure.sdk.payloads.schemas import answer_schema_of
from perdure.sdk.payloads.values import decode, encode
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.machine import Machine
from perdure.wire.agents.approvals import AnswerState
from perdure.wire.base.codec import NAME_BYTES_MAX, TOPIC_BYTES_MAX
from perdure.wire.base.errors import BadValue, from_code
from perdure.wire.base.records import Kind
from perdure.wire.runs.events import JournalEvent
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Answer, EventItem, OpenWait, Publish

FOREVER_SECONDS = 1e10
"""A time-out of at least this number of seconds counts as none."""

T_co = TypeVar("T_co", covariant=True)


class Event(NamedTuple, Generic[T_co]):
    """An event taken by workflow code. `sequence_id` is the event's number in the topic."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None
    data: T_co
    created_at: datetime


class WaitOptions(TypedDict, total=False):
    match: Mapping[str, object] | None
    timeout: float | timedelta | None
    after: int | None
    latest: bool
    key: str | None


def event_call(
    machine: Machine,
    topic: str,
    match: Mapping[str, object] | None,
    *,
    after: int | None,
    latest: bool,
    timeout: float | None = None,
    key: str | None,
) -> DurableCall:
    topic = checked_name(topic, "topic", TOPIC_BYTES_MAX)
    wanted = None
    if match is not None:
        if not isinstance(match, Mapping):
            raise BadValue(f"match: must be a dict, got a `{type(match).__name__}`")
        wanted = {
            checked_name(name, "match", NAME_BYTES_MAX): Raw(encode(value, where=f"match.{name}"))
            for name, value in match.items()
        }
    if after is not None:
        after = checked_int(after, "after")
        if after >= 1 << 63:
            raise BadValue(f"after: must be below 2**63, got {after}")
    print_ = fingerprint_of_call((topic, match, after), {})
    if latest and print_ is not None:
        print_ = LATEST + print_  # Such a wait takes no event of an earlier wait (see `same_question`).

    until_us = _until_us(timeout)

    def request(key: str) -> OpenWait:
        return OpenWait(key, print_, topic=topic, match=wanted, after=after, latest=latest, expires_at_us=until_us)

    return machine.new_call(Kind.EVENT, topic, print_, request, key=key)


async def take_event(machine: Machine, call: DurableCall, data_type: Any, timeout: float | None) -> Event[Any]:
    row = await _wait(machine, call, timeout)
    event = msgspec.structs.asdict(msgspec.json.decode(row.value, type=JournalEvent))
    at_us: int = event.pop("created_at_us")
    event["data"] = decode(bytes(event["data"]), data_type, where=f"the event of topic {event['topic']!r}")
    return Event(**event, created_at=datetime.fromtimestamp(at_us / 1e6, UTC))


def question_call(
    machine: Machine, shown: Raw, timeout: float | None, key: str, *, answer_type: Any = Any
) -> DurableCall:
    print_ = fingerprint(bytes(shown))
    until_us = _until_us(timeout)  # from then on the server refuses an answer, which the code would not see

    def request(key: str) -> OpenWait:
        schema = answer_schema_of(answer_type)
        expected = None if schema is None else Raw(schema)
        return OpenWait(key, print_, data=shown, expires_at_us=until_us, answer_schema=expected)

    return machine.new_call(Kind.RESUME, None, print_, request, key=key)


def _until_us(timeout: float | None) -> int | None:
    if timeout is None or timeout >= FOREVER_SECONDS:
        return None
    return int((asyncio.get_running_loop().time() + timeout) * 1_000_000)


async def take_answer(machine: Machine, call: DurableCall, answer_type: Any, timeout: float | None) -> Any:
    row = await _wait(machine, call, timeout)
    try:
        return decode(bytes(row.value), answer_type, where=f"the answer to {call.key!r}")
    except BadValue as error:
        raise BadValue(
            f"{error.message}; the answer stands, so catch BadValue and ask again under another key"
        ) from error


async def _wait(machine: Machine, call: DurableCall, timeout: float | None) -> Row:
    if timeout is None:
        row = await machine.wait(call)
    else:
        async with asyncio.timeout(timeout):
            row = await machine.wait(call)
    if not row.ok:
        raise TimeoutError(error_from_json(bytes(row.value)).message)  # by an act
    return row


def answer_call(machine: Machine, execution_id: str, step_key: str, data: object, key: str | None) -> DurableCall:
    answer = Raw(encode(data, where="data"))
    execution_id = checked_name(execution_id, "execution_id")
    step_key = checked_name(step_key, "step_key")
    print_ = with_tokens(fingerprint_of_call((execution_id, step_key), {}), [token(bytes(answer))])
    return machine.new_call(
        Kind.SENT, step_key, print_, lambda key: Answer(key, print_, execution_id, step_key, answer), key=key
    )


async def send_answer(machine: Machine, call: DurableCall) -> AnswerState:
    row = await _accepted(machine, call)
    return msgspec.json.decode(row.value, type=AnswerState | None) or AnswerState.ANSWERED  # older rows do not say it


def publish_call(
    machine: Machine, topic: str, data: object, *, event_type: str | None, dedup_key: str | None, key: str | None
) -> DurableCall:
    topic = checked_name(topic, "topic", TOPIC_BYTES_MAX)
    value = Raw(encode(data, where="data"))
    print_: str | None = fingerprint(bytes(value))
    if event_type is not None or dedup_key is not None:
        print_ = with_tokens(print_, [token((event_type, dedup_key))])
    event = EventItem(value, checked_name(event_type, "event_type"), checked_name(dedup_key, "dedup_key"))
    return machine.new_call(Kind.PUBLISHED, topic, print_, lambda key: Publish(key, print_, topic, [event]), key=key)


async def publish(machine: Machine, call: DurableCall) -> int:
    row = await _accepted(machine, call)
    return msgspec.json.decode(row.value, type=list[int])[0]


async def _accepted(machine: Machine, call: DurableCall) -> Row:
    """Raises the server's refusal."""
    row = await machine.wait(call)
    if not row.ok:
        problem = error_from_json(bytes(row.value))
        raise from_code(problem.type, problem.message)
    return row
