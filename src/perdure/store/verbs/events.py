"""Topics: publish, read, and wait for events.

Publishing and registering a wait lock the topic's row, so no event falls between them (I5). The row also numbers
events, so readers see them in order and without gaps (I13).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.store.interface import Notify, Published, Rows, Written, query, query_many, verb
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.store.verbs.push_questions import alone_in, ask, asks, later, note_answer
from perdure.store.verbs.rows import JournalRow, deliver, fitting, journal_row, page_of
from perdure.wire.approvals import ASKED
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Event, Kind
from perdure.wire.requests import EventItem, OpenWait

PAGE = 500
_PUBLISHED = msgspec.json.Decoder(tuple[list[int], int])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@verb(locks="topic=topic")
async def publish(
    *, project_id: str, topic: str, events: Sequence[EventItem], ids: Sequence[str], now_us: int
) -> list[int]:
    return await publish_events(project_id, topic, events, ids, now_us)


@verb(locks="topic=topic execution=asked_by")
async def publish_once(
    *,
    project_id: str,
    topic: str,
    events: Sequence[EventItem],
    ids: Sequence[str],
    now_us: int,
    idempotency: Idempotency | None,
    asked_by: str | None = None,
    answered_by: str | None = None,
) -> tuple[list[int], int]:
    """As `publish`, once per Idempotency-Key; answers the numbers and the time of the first request.

    `asked_by` is the execution that asks the questions among the events, by default the run's only one. `answered_by`
    is recorded as the author of answers.
    """
    first = await recall(project_id, idempotency)
    if first is not None:
        return _PUBLISHED.decode(first)
    numbers = await publish_events(project_id, topic, events, ids, now_us, answered_by=answered_by)
    for number, event in zip(numbers, events, strict=True):
        if event.event_type is not None and event.event_type.startswith(ASKED):
            asked_by = asked_by or await alone_in(project_id, topic)
            if asked_by is not None:
                await ask(project_id, asked_by, topic, number, event, now_us)
    await remember(project_id, idempotency, msgspec.json.encode((numbers, now_us)), now_us)
    return numbers, now_us


async def publish_events(
    project_id: str,
    topic: str,
    events: Sequence[EventItem],
    ids: Sequence[str],
    now_us: int,
    *,
    answers: str | None = None,
    answered_by: str | None = None,
) -> list[int]:
    """Append to the topic and resolve matching waits; part of `publish` and of a worker's report.

    `answers` names the execution whose question is answered; otherwise an answer goes to all that wait for its type.
    `answered_by` is recorded as its author.
    """
    named = any(event.dedup_key is not None for event in events)
    if named:  # some may exist already; the topic's lock makes the count exact
        last: int = (await query("lock_topic", project_id=project_id, topic=topic))[0][0]
    else:
        last = (await query("take_numbers", project_id=project_id, topic=topic, events=len(events)))[0][0] - len(events)
    first = last + 1
    numbers: list[int] = []
    rows: list[tuple[object, ...]] = []
    fresh: list[tuple[int, EventItem, str]] = []
    seen: dict[str, int] = {}
    for event, id in zip(events, ids, strict=True):
        if event.dedup_key is not None:
            known = seen.get(event.dedup_key)
            if known is None:
                found = await query("find_event", project_id=project_id, topic=topic, dedup_key=event.dedup_key)
                known = found[0][0] if found else None
            if known is not None:
                numbers.append(known)
                continue
            seen[event.dedup_key] = last + 1
        last += 1
        numbers.append(last)
        rows.append((project_id, topic, last, id, event.event_type, bytes(event.data), event.dedup_key, now_us))
        fresh.append((last, event, id))
    if not rows:
        return numbers
    if named:
        await query("advance_topic", project_id=project_id, topic=topic, events=last + 1 - first)
    await query_many("insert_event", rows)
    await Notify(Published(project_id, topic))
    waits = await query("waiting_for", project_id=project_id, topic=topic)
    wanted = {match: wanted_by(match) for _, _, match, *_ in waits}
    for seq, event, id in fresh:
        fields = Fields(bytes(event.data))
        taken: set[str] = set()  # one execution takes an event once, with its oldest wait that matches
        rest: Rows = []
        for wait in waits:
            execution_id, key, match, after, event_type, print_ = wait
            if (
                execution_id in taken
                or seq <= (after or 0)
                or (event_type is not None and (event_type != event.event_type or answers not in (None, execution_id)))
                or not fields.match(wanted[match])
            ):
                rest.append(wait)
                continue
            if not await query("meet_wait", execution_id=execution_id, key=key, event_seq=seq, data=None):
                continue  # closed since the look
            taken.add(execution_id)
            if event_type is not None:  # a push worker's suspended step
                await deliver(project_id, execution_id, Kind.RESUME, now_us, key=key, name=topic, value=event.data)
                if answered_by is not None:
                    await note_answer(project_id, execution_id, key, event.data, answered_by, now_us)
                continue
            value = event_value(id, seq, topic, event.event_type, bytes(event.data), now_us)
            await deliver(
                project_id, execution_id, Kind.EVENT, now_us, key=key, name=topic, fingerprint=print_, value=value
            )
        waits = rest
    return numbers


Wanted = Mapping[str, object] | None


def wanted_by(match: bytes | None) -> Wanted:
    """The top-level fields that a wait asks for; None: any event matches."""
    return None if match is None else json.loads(match)


class Fields:
    """The top-level fields of an event, matched against many waits. It decodes each field at most once, and a large
    event only in part."""

    __slots__ = ("_data", "_raw", "_read")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._raw: dict[str, msgspec.Raw] | None = None
        self._read: dict[str, object] = {}

    def match(self, wanted: Wanted) -> bool:
        if wanted is None:
            return True
        if self._raw is None:
            if not self._data.lstrip().startswith(b"{"):
                return False
            self._raw = _FIELDS.decode(self._data)
        return all(name in self._raw and _same(self._value(name), value) for name, value in wanted.items())

    def _value(self, name: str) -> object:
        assert self._raw is not None
        if name not in self._read:
            self._read[name] = json.loads(bytes(self._raw[name]))
        return self._read[name]


def _same(left: object, right: object) -> bool:
    """JSON equality: true is not 1, although Python says so."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def event_value(id: str, seq: int, topic: str, event_type: str | None, data: bytes, at_us: int) -> bytes:
    return msgspec.json.encode(Event(id, seq, topic, event_type, msgspec.Raw(data), at_us))


async def open_wait(
    project_id: str, execution_id: str, attempt: int, wait: OpenWait, now_us: int, at_us: int
) -> JournalRow | None:
    """Register a wait. If its event or answer is there already, resolve it in the same transaction and answer with the
    outcome's row.

    A later attempt that opens the same wait again changes nothing. If it shows other data, that is a new question, and
    an answer must name it.
    """
    topic = wait.topic
    if topic is not None:
        await query("lock_topic", project_id=project_id, topic=topic)
    known = await query("read_wait", execution_id=execution_id, key=wait.key)
    data = None if wait.data is None else bytes(wait.data)
    if known and known[0][0] == "early" and topic is None and not asks(data):
        await query("meet_wait", execution_id=execution_id, key=wait.key, event_seq=None, data=None)
        return await _met(project_id, execution_id, attempt, Kind.RESUME, wait, known[0][4], at_us)
    state = known[0][0] if known else None
    changed = state in ("open", "closed") and _shows_another(known[0], topic, data)
    if state == "met" or (state == "open" and not changed):
        return None
    match = None if wait.match is None else msgspec.json.encode(wait.match)
    after: int | None = None
    if topic is not None:
        reopened = state == "closed" and known[0][1] == topic
        after = known[0][2] if reopened else await _start_of(project_id, execution_id, topic, wait)
    if state == "closed" and not changed:
        await query("reopen_wait", execution_id=execution_id, key=wait.key, expires_at_us=wait.expires_at_us)
    elif known:
        await query(
            "ask_anew",
            execution_id=execution_id,
            key=wait.key,
            topic=topic,
            match=match,
            fingerprint=wait.fingerprint,
            after_seq=after,
            data=data,
            expires_at_us=wait.expires_at_us,
            now_us=later(known, now_us),
        )
    else:
        row = (execution_id, wait.key, project_id, "open", topic, match, wait.fingerprint, after, data, now_us)
        await query_many("insert_wait", [(*row, wait.expires_at_us)])
    if topic is None:
        return None
    assert after is not None
    event = await first_event(project_id, execution_id, topic, match, after)
    if event is None:
        return None
    id, seq, _, event_type, data, event_at_us = event
    await query("meet_wait", execution_id=execution_id, key=wait.key, event_seq=seq, data=None)
    value = event_value(id, seq, topic, event_type, data, event_at_us)
    return await _met(project_id, execution_id, attempt, Kind.EVENT, wait, value, at_us)


def _shows_another(known: tuple[Any, ...], topic: str | None, data: bytes | None) -> bool:
    """Whether a native worker's wait for an answer shows other data than before."""
    shown, is_plain = known[4], known[1] is None and known[6] is None and known[7] is None
    return topic is None and is_plain and data != (None if shown is None else bytes(shown))


async def first_event(
    project_id: str, execution_id: str, topic: str, match: bytes | None, after: int
) -> tuple[Any, ...] | None:
    """The first matching event after a number that the execution has not taken, as `read_events` selects it."""
    wanted = wanted_by(match)
    taken = {seq for (seq,) in await query("taken_events", execution_id=execution_id, topic=topic)}
    while after + 1 in taken:  # numbers have no gaps, so a row of taken events need not be read
        after += 1
    while True:
        page, more = await _page(project_id, topic, after, PAGE, REPLY_BYTES_MAX)
        for event in page:
            if event[1] not in taken and Fields(bytes(event[4])).match(wanted):
                return event
        if not page or not more:
            return None
        after = page[-1][1]


async def _start_of(project_id: str, execution_id: str, topic: str, wait: OpenWait) -> int:
    """The number after which a wait looks, by default from the execution's start."""
    if wait.after is not None:
        return wait.after
    if wait.latest:
        newest: int | None = (await query("newest_event", project_id=project_id, topic=topic))[0][0]
        return newest or 0
    return await number_before(project_id, execution_id, topic)


async def number_before(project_id: str, execution_id: str, topic: str) -> int:
    """The number of the last event before the execution started."""
    found = await query("last_event_before", project_id=project_id, topic=topic, execution_id=execution_id)
    start: int = found[0][0] if found else 0
    return start


async def _met(
    project_id: str, execution_id: str, attempt: int, kind: Kind, wait: OpenWait, value: bytes, at_us: int
) -> JournalRow:
    next_seq: int = (await query("count_outcome", project_id=project_id, id=execution_id))[0][0]
    row = journal_row(execution_id, next_seq - 1, at_us, kind, attempt, key=wait.key, name=wait.topic, value=value)
    await query_many("insert_journal", [row])
    await Notify(Written(execution_id))
    return row


@verb(looks=True)
async def topic_end(*, project_id: str, topic: str) -> int:
    """The number of a topic's newest event, deleted or not; 0 of a topic without events."""
    rows = await query("topics_at", project_id=project_id, topics=json.dumps([topic]))
    return rows[0][1] if rows else 0


async def _page(project_id: str, topic: str, after: int, limit: int, bytes_max: int) -> tuple[Rows, bool]:
    fits, more = await page_of("event_sizes", after, limit, bytes_max, project_id=project_id, topic=topic)
    if not fits:
        return [], more
    return await query("read_events", after=after, limit=fits, project_id=project_id, topic=topic), more


@verb(looks=True)
async def read_events(
    *, project_id: str, topic: str, after: int, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Event], bool]:
    """A topic's events after a number, in order, and whether there may be more. The event that fills `bytes_max` is the
    last."""
    rows, more = await _page(project_id, topic, after, limit, bytes_max)
    return [_event_of(row) for row in rows], more


@verb(looks=True)
async def newest_events(
    *, project_id: str, topic: str, after: int, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Event], bool]:
    newest: int = (await query("newest_event", project_id=project_id, topic=topic))[0][0] or 0
    where: dict[str, object] = {"project_id": project_id, "topic": topic}
    amount, ahead, first = 0, 2, newest + 1
    while amount < limit and bytes_max > 0 and first - 1 > after:  # as in `page_of`, from the other end
        asked = min(ahead, limit - amount, first - 1 - after)
        found = await query("event_sizes", after=first - 1 - asked, limit=asked, **where)
        sizes = [row[1] for row in found if row[0] < first]
        fits = fitting(reversed(sizes), bytes_max)
        amount, first, ahead = amount + fits, first - fits, ahead * 8
        bytes_max -= sum(sizes)
        if fits < asked:
            break
    rows = await query("read_events", after=first - 1, limit=amount, **where) if amount else []
    return [_event_of(row) for row in reversed(rows)], amount == limit or (bytes_max <= 0 and first - 1 > after)


def _event_of(row: Sequence[Any]) -> Event:
    id, seq, topic, event_type, data, at_us = row
    return Event(id, seq, topic, event_type, msgspec.Raw(data), at_us)
