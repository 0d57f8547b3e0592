"""Topics: publish, read, and wait for events.

Publishing and opening a wait lock the topic's row, so no event falls between (I5). The row also numbers events (I13).
"""

import json
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from perdure.store.base.executions import JournalRow, StoredWait
from perdure.store.base.input_checks import check_answer
from perdure.store.base.interface import (
    Notify,
    Published,
    Query,
    Written,
    query,
    query_many,
    record,
    records,
    value,
    verb,
)
from perdure.store.base.records import to_values
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.base.pages import fitting
from perdure.store.verbs.outside.push_questions import alone_in, ask, asks, later, note_answer
from perdure.store.verbs.runs.event_fields import (
    BLOCK,
    Fields,
    FieldsRow,
    Wanted,
    block_rows,
    hash_of,
    new_rows,
    read_names,
    wanted_by,
)
from perdure.store.verbs.runs.event_search import events_page, first_event
from perdure.store.verbs.runs.rows import deliver
from perdure.wire.agents.approvals import ASKED
from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import Kind
from perdure.wire.runs.events import Event, JournalEvent, ListedTopic, PublishedEvents
from perdure.wire.runs.requests import EventItem, OpenWait

_LAST_CHARACTER = "\U0010ffff"
_PUBLISHED = msgspec.json.Decoder(tuple[list[int], int])


@verb(locks="topic=topic execution=asked_by")
async def publish(
    *,
    project_id: str,
    topic: str,
    events: Sequence[EventItem],
    ids: Sequence[str],
    now_us: int,
    idempotency: Idempotency | None = None,
    asked_by: str | None = None,
    answered_by: str | None = None,
) -> PublishedEvents:
    """Publish events. `asked_by` asks the questions among the events, by default the run's only execution.
    `answered_by` is the author of answers."""
    first = await recall(project_id, idempotency)
    if first is not None:
        numbers, at_us = _PUBLISHED.decode(first)
        return PublishedEvents(numbers, at_us)
    numbers = await publish_events(project_id, topic, events, ids, now_us, answered_by=answered_by)
    for number, event in zip(numbers, events, strict=True):
        if event.event_type is not None and event.event_type.startswith(ASKED):
            asked_by = asked_by or await alone_in(project_id, topic)
            if asked_by is not None:
                await ask(project_id, asked_by, topic, number, event, now_us=now_us)
    await remember(project_id, idempotency, msgspec.json.encode((numbers, now_us)), now_us)
    return PublishedEvents(numbers, now_us)


class WaitingExecution(Struct, frozen=True, gc=False):
    execution_id: str
    key: str
    match: bytes | None
    after_seq: int | None
    event_type: str | None
    """The answer's type, for a push worker's suspended step."""
    fingerprint: str | None
    opened_at_us: int
    match_names: str | None
    match_hash: int | None

    def admits(self, event: Event, answers: str | None) -> bool:
        if event.sequence_id <= (self.after_seq or 0):
            return False
        return self.event_type is None or (self.event_type == event.event_type and answers in (None, self.execution_id))


def _oldest_first(wait: WaitingExecution) -> tuple[str, int, str]:
    return wait.execution_id, wait.opened_at_us, wait.key


class CandidateWaits:
    """Open waits that events of a topic may meet."""

    def __init__(self, events: Sequence[Fields], compared: Sequence[WaitingExecution], names: Sequence[str]) -> None:
        """Each event meets the waits in `compared`. `names` are the sets of names in other waits' matches."""
        self._compared = sorted(compared, key=_oldest_first)
        several = [(text, read_names(text)) for text in names]
        self._hashes = [[(text, event.match_hash(names)) for text, names in several] for event in events]
        self._matching: dict[tuple[str | None, int | None], list[WaitingExecution]] = {}
        self._met: set[tuple[str, str]] = set()

    def wanted(self) -> list[dict[str, object]]:
        """Return the keys of waits to `add`."""
        pairs = dict.fromkeys(pair for pairs in self._hashes for pair in pairs if pair[1] is not None)
        return [{"match_names": names, "match_hash": hash} for names, hash in pairs]

    def add(self, wait: WaitingExecution) -> None:
        self._matching.setdefault((wait.match_names, wait.match_hash), []).append(wait)

    def for_event(self, n: int) -> Sequence[WaitingExecution]:
        """Return waits; an execution's oldest wait comes first."""
        lists = [self._compared, *(self._matching[pair] for pair in self._hashes[n] if pair in self._matching)]
        if self._met:
            for waits in lists:
                waits[:] = [wait for wait in waits if (wait.execution_id, wait.key) not in self._met]
        together = [wait for waits in lists for wait in waits]
        return together if len(together) == len(self._compared) else sorted(together, key=_oldest_first)

    def remove(self, wait: WaitingExecution) -> None:
        self._met.add((wait.execution_id, wait.key))


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
    """Append to the topic and resolve matching waits. Only questions of the execution `answers` are answered; if empty,
    none are."""
    named = any(event.dedup_key is not None for event in events)
    if named:  # some may exist already; the topic's lock makes the count exact
        [(last,)] = await query("lock_topic", project_id=project_id, topic=topic)
    else:
        [(end,)] = await query("take_numbers", project_id=project_id, topic=topic, events=len(events))
        last = end - len(events)
    numbers: list[int] = []
    rows: list[dict[str, object]] = []
    fresh: list[Event] = []
    seen: dict[str, int] = {}
    for item, id in zip(events, ids, strict=True):
        if item.dedup_key is not None:
            known = seen.get(item.dedup_key)
            if known is None:
                found = await query("find_event", project_id=project_id, topic=topic, dedup_key=item.dedup_key)
                known = found[0][0] if found else None
            if known is not None:
                numbers.append(known)
                continue
            seen[item.dedup_key] = last + 1
        last += 1
        numbers.append(last)
        event = Event(
            id=id, sequence_id=last, topic=topic, data=item.data, created_at_us=now_us, event_type=item.event_type
        )
        fresh.append(event)
        rows.append({**to_values(event), "project_id": project_id, "dedup_key": item.dedup_key})
    if not rows:
        return numbers
    if named:
        await query("advance_topic", project_id=project_id, topic=topic, events=len(rows))
    await query_many("insert_event", rows)
    await Notify(Published(project_id, topic))
    contents = [Fields(bytes(event.data)) for event in fresh]
    await _index(project_id, topic, fresh[0].sequence_id, contents)
    where = {"project_id": project_id, "topic": topic}
    waits = await records(WaitingExecution, "waiting_for", **where)
    if not waits:
        return numbers
    names = [wait.match_names for wait in waits if wait.match_names is not None]
    waiting = CandidateWaits(contents, [wait for wait in waits if wait.match_names is None], names)
    if wanted := [where | pair for pair in waiting.wanted()]:
        for wait in await Query("waits_matching", wanted, many=True, record=WaitingExecution):
            waiting.add(wait)
    matches: dict[bytes | None, Wanted] = {}
    for n, (event, fields) in enumerate(zip(fresh, contents, strict=True)):
        taken: set[str] = set()  # one execution takes an event once, with its oldest wait that matches
        for wait in waiting.for_event(n):
            id = wait.execution_id
            if wait.match not in matches:
                matches[wait.match] = wanted_by(wait.match)
            if id in taken or not wait.admits(event, answers) or not fields.match(matches[wait.match]):
                continue
            waiting.remove(wait)
            if not await query("meet_wait", execution_id=id, key=wait.key, event_seq=event.sequence_id, data=None):
                continue  # closed since the look
            taken.add(id)
            if wait.event_type is not None:  # a push worker's suspended step
                await deliver(project_id, id, Kind.RESUME, now_us, key=wait.key, name=topic, value=event.data)
                if answered_by is not None:
                    await note_answer(project_id, id, wait.key, event.data, answered_by=answered_by, now_us=now_us)
                continue
            await deliver(
                project_id,
                id,
                Kind.EVENT,
                now_us,
                key=wait.key,
                name=topic,
                fingerprint=wait.fingerprint,
                value=event_value(event),
            )
    return numbers


async def _index(project_id: str, topic: str, first: int, events: Sequence[Fields]) -> None:
    where = {"project_id": project_id, "topic": topic}
    await query_many("insert_event_fields", [asdict(row) | where for row in new_rows(first, events)])
    last = (first + len(events) - 1) // BLOCK * BLOCK
    if last >= first:
        new = await records(FieldsRow, "new_event_fields", upto=last, **where)
        await query("delete_new_event_fields", upto=last, **where)
        await query_many("insert_event_fields", [asdict(row) | where for row in block_rows(last, new)])


def event_value(event: Event) -> bytes:
    return msgspec.json.encode(JournalEvent(**asdict(event)))


async def open_wait(
    project_id: str, execution_id: str, attempt: int, wait: OpenWait, now_us: int, at_us: int
) -> JournalRow | None:
    """Open a wait, or return the outcome's row if the event or answer has come already.

    If a later attempt opens the wait again, nothing changes, unless the data differ: an answer must then name the new
    question.
    """
    topic = wait.topic

    async def met(kind: Kind, value: bytes, event_seq: int | None) -> JournalRow:
        await query("meet_wait", execution_id=execution_id, key=wait.key, event_seq=event_seq, data=None)
        [(next_seq,)] = await query("count_outcome", project_id=project_id, id=execution_id)
        row = JournalRow(execution_id, next_seq - 1, at_us, kind, attempt, key=wait.key, name=topic, value=value)
        await query_many("insert_journal", [row])
        await Notify(Written(execution_id))
        return row

    last = 0
    if topic is not None:
        last = await share_topic(project_id, topic)
    known = await record(StoredWait, "read_wait", execution_id=execution_id, key=wait.key)
    data = None if wait.data is None else bytes(wait.data)
    schema = None if wait.answer_schema is None else bytes(wait.answer_schema)
    if known is not None and known.state == "early" and topic is None and not asks(data):
        assert known.data is not None
        with suppress(BadValue):  # the step asks anew
            check_answer(None, schema, known.data, "data")
            return await met(Kind.RESUME, known.data, None)
    changed = known is not None and known.state in ("open", "closed") and known.shows_another(topic, data)
    if known is not None and known.state in ("open", "closed") and not changed and schema is not None:
        await query("set_answer_schema", execution_id=execution_id, key=wait.key, answer_schema=schema)
    if known is not None and (known.state == "met" or (known.state == "open" and not changed)):
        return None
    match = None if wait.match is None else msgspec.json.encode(wait.match)
    after: int | None = None
    if topic is not None:
        reopened = known is not None and known.state == "closed" and known.topic == topic
        after = known.after_seq if reopened and known else await _start_of(project_id, execution_id, wait, last)
    values: dict[str, object] = {
        "execution_id": execution_id,
        "key": wait.key,
        "topic": topic,
        "match": match,
        **hash_of(match),
        "fingerprint": wait.fingerprint,
        "after_seq": after,
        "data": data,
        "expires_at_us": wait.expires_at_us,
        "answer_schema": schema,
    }
    if known is None:
        await query_many("insert_wait", [{**values, "project_id": project_id, "state": "open", "now_us": now_us}])
    elif known.state == "closed" and not changed:
        await query("reopen_wait", execution_id=execution_id, key=wait.key, expires_at_us=wait.expires_at_us)
    else:
        await query("ask_anew", **values, now_us=later(known.opened_at_us, now_us))
    if topic is None:
        return None
    assert after is not None
    if after >= last:
        return None
    event = await first_event(project_id, execution_id, topic, match, after)
    if event is None:
        return None
    return await met(Kind.EVENT, event_value(event), event.sequence_id)


async def share_topic(project_id: str, topic: str) -> int:
    """Keep publishers out, but not verbs that open waits. Returns the newest event's number."""
    found = await query("share_topic", project_id=project_id, topic=topic)
    if not found:
        await query("make_topic", project_id=project_id, topic=topic)
        found = await query("share_topic", project_id=project_id, topic=topic)
    [(last,)] = found
    return int(last)


async def _start_of(project_id: str, execution_id: str, wait: OpenWait, last: int) -> int:
    assert wait.topic is not None
    if wait.after is not None:
        return wait.after
    if wait.latest or last == 0:
        return last
    return await number_before(project_id, execution_id, wait.topic)


async def number_before(project_id: str, execution_id: str, topic: str) -> int:
    """Return the number of the last event before the execution started."""
    where = {"project_id": project_id, "topic": topic, "execution_id": execution_id}
    return await value("last_event_before", **where) or 0


@verb(reads=True)
async def topic_end(*, project_id: str, topic: str) -> int:
    """Return the newest event's number, deleted or not; 0 without one."""
    for _, last in await query("topics_at", project_id=project_id, topics=json.dumps([topic])):
        return int(last)
    return 0


@verb(reads=True)
async def list_topics(
    *, project_id: str, prefix: str, after: str, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[ListedTopic], bool]:
    """List topics by name, and whether more follow. SQLite reads an event's data to reach its time, so large events
    make a page short."""
    where = {
        "project_id": project_id,
        "first": max(prefix, after),
        "beyond": prefix + _LAST_CHARACTER,
        "after_topic": after,
    }
    sizes = [size for (size,) in await query("topic_sizes", limit=limit + 1, **where)]
    fits = fitting(sizes[:limit], bytes_max)
    return await records(ListedTopic, "list_topics", limit=fits, **where), fits < len(sizes)


@verb(reads=True)
async def read_events(
    *, project_id: str, topic: str, after: int, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Event], bool]:
    """Read a page of events, and whether more may follow."""
    return await events_page(project_id, topic, after, limit, bytes_max)


@verb(reads=True)
async def newest_events(
    *, project_id: str, topic: str, after: int, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Event], bool]:
    """Read events like `read_events`, newest first."""
    where: dict[str, object] = {"project_id": project_id, "topic": topic}
    newest = await value("newest_event", **where) or 0
    amount, ahead, first = 0, 2, newest + 1
    while amount < limit and bytes_max > 0 and first - 1 > after:  # as in `page_of`, from the other end
        asked = min(ahead, limit - amount, first - 1 - after)
        found = await query("event_sizes", after=first - 1 - asked, limit=asked, **where)
        sizes = [size for seq, size, _ in found if seq < first]
        fits = fitting(reversed(sizes), bytes_max)
        amount, first, ahead = amount + fits, first - fits, ahead * 8
        bytes_max -= sum(sizes)
        if fits < asked:
            break
    events = await records(Event, "read_events", after=first - 1, limit=amount, **where) if amount else []
    return events[::-1], amount == limit or (bytes_max <= 0 and first - 1 > after)
