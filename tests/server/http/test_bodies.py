"""Bodies of requests: the limit of each route, and the share held by a server."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect
from tests.kit.polling import until
from tests.server.http.test_limits import RUN, Wire, error_of, wire
from tests.server.requests import ROUTES, UNKNOWN, name_of, operation_of
from tests.server.serving import Served, serving

from perdure.server.http.bodies import COUNTED_BYTES_MIN, PARTS_MAX, SMALL, USUAL, VALUES, BodyCount
from perdure.server.http.in_flight import LIGHT_BYTES, RequestsInFlight, Share
from perdure.server.http.routing import Route
from perdure.wire.base import codec
from perdure.wire.base.access import Caller
from perdure.wire.base.codec import check_json
from perdure.wire.base.errors import BadRequest, BadValue, PerdureError, TooManyRequests, Unavailable
from perdure.wire.base.fields import MaxItems

MIB = 1 << 20
SIGN_IN = "/api/v1/auth/signin"
LINKS = f"/api/v1/approvals/{UNKNOWN}/k/links"
SUBMIT = f"/api/v1/approvals/{UNKNOWN}/k/submit"


async def until_held(served: Served, size: int) -> None:
    await until(lambda: served.app.services.in_flight.bytes == size)


# --- limits of routes ----------------------------------------------------------------------------------------------


def test_a_body_that_is_read_before_the_caller_is_known_is_small() -> None:
    for route in ROUTES:
        if route.caller is Caller.ANYONE and route._reads:
            assert route.body_bytes_max == SMALL, name_of(route)


def test_only_routes_that_take_values_of_users_have_no_limit_of_their_own() -> None:
    large = {name_of(route) for route in ROUTES if route.body_bytes_max == VALUES}
    assert large == {
        "POST /api/v1/workflows/{workflow_id}/run",
        "POST /api/v1/workflows/batch_run",
        "POST /api/v1/executions",
        "POST /api/v1/executions/{execution_id}/act",
        "POST /api/v1/executions/{execution_id}/fork",
        "POST /api/v1/bulk",
        "POST /api/v1/bulk/preview",
        "POST /api/v1/executions/{execution_id}/resume/{step_key}",
        "POST /api/v1/approvals/{execution_id}/{step_key}/submit",
        "POST /api/v1/events/publish",
        "POST /api/v1/schedules",
        "PATCH /api/v1/schedules/{schedule_id}",
        "PUT /internal/session/{session_id}/memory",
        "POST /internal/session/{session_id}/transcript",
        "POST /internal/conversation/{conversation_id}/add",
        "POST /internal/spans/batch",
        "POST /internal/executions/{execution_id}/complete",
        "POST /internal/executions/{execution_id}/fail",
        "POST /internal/executions/{execution_id}/steps",
        "POST /worker/v1/register",
        "POST /worker/v1/report",
    }


def test_the_document_names_the_limit_of_each_body() -> None:
    for route in ROUTES:
        if route.body_type is not None and route.body_bytes_max < VALUES:
            told = operation_of(route)["responses"]["413"]["description"]
            assert f"{route.body_bytes_max:,} bytes" in told, name_of(route)


@pytest.mark.parametrize(("path", "limit"), [(SIGN_IN, SMALL), ("/sign-in", SMALL), (LINKS, USUAL)])
async def test_a_body_beyond_its_routes_limit_is_refused_unread(served: Served, path: str, limit: int) -> None:
    form = (
        ("Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: same-origin") if path == "/sign-in" else ()
    )
    async with wire(served) as line:
        await line.send(line.head("POST", path, f"Content-Length: {limit + 1}", *form))
        status, _, body = await line.reply()
        assert status == 413 and f"{limit:,} bytes" in body.decode()


@pytest.mark.parametrize(("path", "limit"), [(SIGN_IN, SMALL), (LINKS, USUAL)])
async def test_a_chunked_body_is_refused_once_it_is_beyond_the_limit(served: Served, path: str, limit: int) -> None:
    async with wire(served) as line:
        await line.send(line.head("POST", path, "Transfer-Encoding: chunked"))
        piece = b"%x\r\n%b\r\n" % (limit // 4, b" " * (limit // 4))
        for _ in range(5):
            await line.send(piece)
        status, _, body = await line.reply()
        assert (status, error_of(body)) == (413, "TOO_LARGE") and f"{limit:,} bytes" in body.decode()
    await until_held(served, 0)


async def test_a_caller_that_sends_a_body_beyond_the_limit_whole_still_gets_the_answer(served: Served) -> None:
    async with wire(served) as line:
        await line.send(line.head("POST", SIGN_IN, f"Content-Length: {16 * MIB}"))
        await line.send(b" " * (16 * MIB))
        assert (await line.reply())[0] == 413


async def test_the_setting_is_the_limit_of_routes_that_take_values(database: str) -> None:
    async with serving(database, request_bytes_max=3 * MIB) as served:
        fine = await served.client.post(RUN, json={"accept_early": True, "payload": "x" * 2 * MIB})
        assert fine.status_code == 200
        refused = await served.client.post(RUN, json={"accept_early": True, "payload": "x" * 3 * MIB})
        assert refused.status_code == 413 and f"{3 * MIB:,} bytes" in refused.json()["error"]


@pytest.mark.parametrize("path", [SUBMIT, RUN, LINKS, "/api/v1/auth/password"])
async def test_who_calls_is_found_out_before_the_body_is_read(served: Served, path: str) -> None:
    async with wire(served) as line:
        line.key = "sk_00000000_" + "0" * 32
        await line.send(line.head("POST", path, "Content-Length: 100", "Expect: 100-continue"))
        assert (await line.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")


# --- lists and objects ---------------------------------------------------------------------------------------------


def collections_in(kind: Any, around: tuple[bytes, bytes]) -> Iterator[tuple[str, Any, tuple[bytes, bytes]]]:
    """Each list and object with names of the sender: path, type, and surrounding JSON."""
    before, after = around
    for one in kind.types if isinstance(kind, inspect.UnionType) else [kind]:
        if isinstance(one, inspect.StructType):
            tag = b"" if one.tag_field is None else b'"%b":"%b",' % (one.tag_field.encode(), str(one.tag).encode())
            for field in one.fields:
                opening = b'%b{%b"%b":' % (before, tag, field.encode_name.encode())
                for path, *rest in collections_in(field.type, (opening, b"}" + after)):
                    yield f".{field.encode_name}{path}", *rest
        elif isinstance(one, inspect.ListType):
            yield "", one, around
            for path, *rest in collections_in(one.item_type, (before + b"[", b"]" + after)):
                yield f"[]{path}", *rest
        elif isinstance(one, inspect.DictType):
            yield "", one, around
            assert isinstance(one.value_type, inspect.StrType | inspect.RawType), "and below?"
        else:
            assert not isinstance(one, inspect.SetType | inspect.VarTupleType | inspect.AnyType), "and these?"


COLLECTIONS = [
    pytest.param(route, path, kind, around, id=f"{route.name}{path}")
    for route in ROUTES
    if route.body_type is not None
    for path, kind, around in collections_in(inspect.type_info(route.body_type), (b"", b""))
]


def test_bodies_hold_lists_and_objects() -> None:
    assert {"report.items[].entries[].item.tags", "fork_execution.edits.steps"} <= {one.id for one in COLLECTIONS}


BEYOND = PARTS_MAX + PARTS_MAX // 100
"""The limit of the whole is inexact, because each struct may have all fields."""


def large(body: bytes) -> bytes:
    """Enlarge the body, with enough commas to be counted."""
    return b'%b,"more":"%b"}' % (body[:-1], b"," * COUNTED_BYTES_MIN)


def filled(kind: Any, around: tuple[bytes, bytes], count: int) -> bytes:
    item = b"[]" if isinstance(kind, inspect.ListType) and type(kind.item_type) is inspect.TupleType else b"{}"
    if isinstance(kind, inspect.DictType):
        value = b'""' if isinstance(kind.value_type, inspect.StrType) else b"{}"
        items = [b'"%d":%b' % (n, value) for n in range(count)]
    else:
        items = [b'""' if isinstance(kind.item_type, inspect.StrType) else item] * count
    brackets = b"{%b}" if isinstance(kind, inspect.DictType) else b"[%b]"
    return around[0] + brackets % b",".join(items) + around[1]


@pytest.mark.parametrize(("route", "path", "kind", "around"), COLLECTIONS)
def test_each_list_and_object_is_counted_before_it_is_decoded(
    route: Route, path: str, kind: Any, around: tuple[bytes, bytes]
) -> None:
    assert route._count is not None
    route._count.check(large(filled(kind, around, 200)))
    with pytest.raises(PerdureError, match=r"^body[a-z_.\[\]]*: holds more than"):
        route._count.check(large(filled(kind, around, BEYOND)))


@pytest.mark.parametrize(("route", "path", "kind", "around"), COLLECTIONS)
def test_a_list_or_object_whose_name_stands_twice_is_counted(
    route: Route, path: str, kind: Any, around: tuple[bytes, bytes]
) -> None:
    assert route._count is not None
    before, after = around
    many = filled(kind, (b"", b""), BEYOND)
    few = filled(kind, (b"", b""), 1)
    names = list(re.finditer(rb'"(\w+)":(?=[\[{]|$)', before))
    again = b',"%b":' % names[-1][1]
    bodies = [before + again.join([few] * BEYOND) + after]
    for name in names:
        depth = len(re.findall(rb"[\[{]", before[name.end() :]))
        bodies.append(before + many + after[:depth] + b',"%b":null' % name[1] + after[depth:])
    for body in bodies:
        with pytest.raises(PerdureError, match=r"^body[a-z_.\[\]]*: holds more than"):
            route._count.check(large(body))


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("/api/v1/events/publish", "events", 400),
        ("/api/v1/executions", "items", 422),
        ("/api/v1/workflows/batch_run", "workflows", 422),
        ("/internal/spans/batch", "spans", 422),
        ("/internal/session/s/transcript", "messages", 422),
        ("/api/v1/workers/queues", "queues", 422),
        ("/worker/v1/register", "workflows", 422),
        ("/worker/v1/report", "items", 400),
    ],
)
async def test_a_list_without_end_is_refused_before_it_is_decoded(
    served: Served, path: str, name: str, status: int
) -> None:
    body = b'{"topic":"t","%b":[%b]}' % (name.encode(), b",".join([b"{}"] * 1_000_000))
    refused = await served.client.post(path, content=body, headers={"perdure-protocol": "1"})
    assert refused.status_code == status and "holds more than" in refused.json()["error"]
    assert refused.json()["details"] == {"path": f"body.{name}"}


NAMES = b",".join([b'"%d":"x"' % n for n in range(BEYOND)])


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (RUN, b'{"tags":{%b}}', "200,000 entries, tags"),
        ("/api/v1/executions", b'{"items":[{"workflow_id":"w"},{"tags":{%b}}]}', "200,000 entries, tags"),
        ("/api/v1/workflows/batch_run", b'{"workflows":[{"workflow_id":"w"},{"tags":{%b}}]}', "200,000 entries, tags"),
        ("/worker/v1/report", b'{"items":[{"entries":[{"type":"step"},{"item":{"tags":{%b}}}]}]}', "200,000 entries"),
        (f"/api/v1/executions/{UNKNOWN}/fork", b'{"edits":{"steps":{%b}}}', "body.edits.steps: holds more than 1,000"),
        ("/api/v1/bulk", b'{"options":{"edits":{"steps":{%b}}}}', "body.options.edits.steps: holds more than 1,000"),
    ],
)
async def test_names_without_end_are_refused_before_they_are_decoded(
    served: Served, path: str, body: bytes, words: str
) -> None:
    refused = await served.client.post(path, content=body % NAMES, headers={"perdure-protocol": "1"})
    assert refused.status_code == 422 and words in refused.json()["error"]


@pytest.mark.parametrize(
    ("name", "body", "share"),
    [
        ("publish_event", b'{"topic":"t","events":[%b]}' % b",".join([b'{"data":1}'] * 1_000_000), 5),
        ("start_executions", b'{"items":[{"workflow_id":"w","payload":{"tags":1},"tags":{%b}}]}' % NAMES, 2),
        ("fork_execution", b'{"edits":{"steps":{%b}}}' % NAMES, 10),
    ],
)
def test_counting_takes_a_small_part_of_what_decoding_takes(name: str, body: bytes, share: int) -> None:
    [route] = [route for route in ROUTES if route.name == name]
    assert route._count is not None and route._decode is not None
    begun = time.thread_time()
    with pytest.raises(PerdureError, match="holds more than"):
        route._count.check(body)
    counted = time.thread_time() - begun
    begun = time.thread_time()
    route._decode(body)
    assert counted * share < time.thread_time() - begun


class Item(msgspec.Struct):
    words: list[str] = []
    values: Annotated[list[msgspec.Raw], MaxItems(300)] = []


class Body(msgspec.Struct):
    items: Annotated[list[Item], MaxItems(250, BadRequest)] | None = None
    names: Annotated[dict[str, msgspec.Raw], MaxItems(300)] = {}


COMMAS = b'"' + b"," * 300 + b'"'


def test_as_many_items_and_names_as_there_may_be_are_taken() -> None:
    count = BodyCount(Body)
    many = b",".join([b"[1,1]"] * 300)
    names = b",".join([b'"%d":[1,1,{"a":1,"b":1}]' % n for n in range(300)])
    for body in (
        b'{"items":[{"values":[%b]},{"values":[%b]}],"names":{%b}}' % (many, many, names),
        b'{"items":[%b]}' % b",".join([b'{"words":[%b,%b]}' % (COMMAS, COMMAS)] * 250),
        b'{"items":null,"names":{"a":%b},"more":[%b]}' % (COMMAS, many),
    ):
        count.check(large(body))
    for path, body in (
        ("items", b'{"items":[%b]}' % b",".join([b'{"words":[1]}'] * 251)),
        ("items[].values", b'{"items":[{},{"values":[%b,1]}]}' % many),
        ("names", b'{"names":{%b,"a":1}}' % names),
    ):
        with pytest.raises(PerdureError, match=rf"^body\.{re.escape(path)}: holds more than (250|300) entries"):
            count.check(large(body))
    some = b'{"words":[%b]}' % b",".join([b'"a"'] * (BEYOND // 200))
    with pytest.raises(BadValue, match=r"^body: holds more than 200,000"):
        count.check(large(b'{"items":[%b]}' % b",".join([some] * 200)))


async def test_a_large_body_of_the_wrong_shape_is_refused_with_the_path(served: Served) -> None:
    item = b'{"workflow_id":"w","tags":{%b}}' % b",".join([b'"a":"b"'] * 10)
    body = b'{"workflows":[%b]}' % b",".join([item] * 9_000 + [b"1"])
    refused = await served.client.post("/api/v1/workflows/batch_run", content=body)
    assert refused.status_code == 422 and "body.workflows[9000]: Expected `object`" in refused.json()["error"]


# --- turns of other requests ----------------------------------------------------------------------------------------


def list_of(item: Callable[[int], bytes]) -> bytes:
    """A list of some 8 MB."""
    count = 7 * MIB // len(item(1_000_000))
    return b"[%b]" % b",".join(map(item, range(count)))


ITEMS_OF_MUCH_WORK: dict[str, Callable[[int], bytes]] = {
    "numbers near the largest": lambda n: b"%de290" % n,
    "strings like numbers": lambda n: b'"%de290"' % n,
    "long numbers": lambda n: b"1.%b5e290" % (b"1" * 14_000),
    "nested": lambda n: b"[" * 55 + b"]" * 55,
    "objects": lambda n: b'{"":{"":1}}',
}


@pytest.mark.parametrize("item", ITEMS_OF_MUCH_WORK.values(), ids=ITEMS_OF_MUCH_WORK)
@pytest.mark.parametrize(
    ("path", "around"),
    [
        (RUN, b'{"accept_early":true,"payload":%b}'),
        ("/api/v1/events/publish", b'{"topic":"t","events":[{"data":%b}]}'),
        ("/api/v1/executions", b'{"items":[{"workflow_id":"w","accept_early":true,"payload":%b}]}'),
    ],
)
async def test_other_requests_get_turns_while_a_large_value_is_checked(
    served: Served, path: str, around: bytes, item: Callable[[int], bytes], no_collector: None
) -> None:
    value = list_of(item)
    body = around % value

    async def longest_turn() -> float:
        turns: list[float] = []

        async def take_turns() -> None:
            while True:
                before = time.thread_time()
                await asyncio.sleep(0)
                turns.append(time.thread_time() - before)

        async with wire(served) as line:
            await line.send(line.head("POST", path, f"Content-Length: {len(body)}"))
            sending = asyncio.create_task(line.send(body))
            taking = asyncio.create_task(take_turns())
            status, _, answer = await line.reply()
            taking.cancel()
            await sending
        assert status == 200, answer
        return max(turns)

    for _ in range(3):  # a busy machine makes single turns long
        begun = time.thread_time()
        check_json(value, where="payload")
        whole = time.thread_time() - begun
        if await longest_turn() < max(whole, 0.1):  # 0.05 s; 0.6 before
            break
    else:
        pytest.fail("a turn took as long as the check")
    assert not codec._judged


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"[%b%b]" % (b"1," * 600_000, b"[" * 64 + b"]" * 64), "payload: nested deeper than 64 levels"),
        (b"1." + b"1" * 8_000_000, "payload: holds an integer of more than 4,000 digits, or a number of more than"),
        (b"[%b1e309]" % (b"1e300," * 100_000), "payload: holds a number that overflows"),
        (b'["%b",%b]' % (b"1e300" * 110_000, b"9" * 4_001), "payload: holds an integer of more than 4,000 digits"),
    ],
)
async def test_a_fault_of_a_large_value_is_told_as_that_of_a_small_one(
    served: Served, value: bytes, words: str
) -> None:
    refused = await served.client.post(RUN, content=b'{"payload":%b}' % value)
    assert refused.status_code == 422 and words in refused.json()["error"]
    assert not codec._judged


# --- bytes in flight -----------------------------------------------------------------------------------------------


async def halves(stack: AsyncExitStack, served: Served, count: int, path: str, sent: int, key: str = "") -> list[Wire]:
    """Callers that send `sent` bytes of a body and stop."""
    lines = []
    for _ in range(count):
        line = await stack.enter_async_context(wire(served))
        line.key = key or line.key
        await line.send(line.head("POST", path, f"Content-Length: {sent + 1}") + b" " * sent)
        lines.append(line)
    return lines


async def test_callers_without_a_key_hold_little(served: Served) -> None:
    in_flight = served.app.services.in_flight
    async with AsyncExitStack() as stack:
        lines = await halves(stack, served, 40, SIGN_IN, 31 * MIB, "sk_none")
        assert {(await line.reply())[0] for line in lines} == {413}
        assert in_flight.bytes == 0
        await halves(stack, served, 40, SIGN_IN, SMALL - 1)
        await until_held(served, 40 * (SMALL - 1))
        assert in_flight.strangers_bytes == in_flight.bytes
    await until_held(served, 0)
    assert in_flight.strangers_bytes == 0 and not in_flight._by_owner


async def test_callers_without_a_key_have_a_share_of_all(database: str) -> None:
    async with serving(database, in_flight_bytes_max=10 * 8 * SMALL) as served, AsyncExitStack() as stack:
        await halves(stack, served, 10, SIGN_IN, SMALL - 1)
        await until_held(served, 10 * (SMALL - 1))
        [late] = await halves(stack, served, 1, SIGN_IN, SMALL - 1)
        status, headers, body = await late.reply()
        assert (status, error_of(body), headers["retry-after"]) == (429, "TOO_MANY_REQUESTS", "1")
        known = await served.client.post(RUN, json={"accept_early": True, "payload": "x" * SMALL})
        assert known.status_code == 200


async def test_an_address_holds_no_more_than_its_share_and_small_bodies_still_pass(database: str) -> None:
    limits: dict[str, Any] = {"in_flight_bytes_max": 64 * MIB, "in_flight_per_address_bytes_max": 8 * MIB}
    async with serving(database, **limits) as served, AsyncExitStack() as stack:
        lines = await halves(stack, served, 40, RUN, MIB)
        answers = [asyncio.create_task(line.reply()) for line in lines]
        await until(lambda: sum(answer.done() for answer in answers) == 34)
        assert {answer.result()[0] for answer in answers if answer.done()} == {429}
        assert served.app.services.in_flight.bytes <= 6 * MIB  # a quarter of 8 MiB is for small bodies
        small = await served.client.post(RUN, json={"accept_early": True, "payload": "x" * 1_000})
        assert small.status_code == 200
        for answer in answers:
            answer.cancel()
    async with asyncio.timeout(60):
        await until_held(served, 0)


async def test_a_slow_body_gives_its_bytes_back_when_its_time_is_over(database: str) -> None:
    async with serving(database, body_seconds=0.3) as served, AsyncExitStack() as stack:
        [line] = await halves(stack, served, 1, RUN, MIB)
        await until_held(served, MIB)
        assert (await line.reply())[0] == 408
        await until_held(served, 0)


def test_all_addresses_share_one_limit() -> None:
    in_flight = RequestsInFlight(8 * MIB, 8 * MIB)
    for n in range(6):
        Share(in_flight, f"192.0.2.{n}", known=True).add(MIB)
    large = Share(in_flight, "192.0.2.9", known=True)
    with pytest.raises(Unavailable, match="6,291,456 bytes"):
        large.add(MIB)
    Share(in_flight, "192.0.2.9", known=True).add(LIGHT_BYTES)
    assert in_flight.bytes == 6 * MIB + LIGHT_BYTES


def test_a_body_that_is_alone_is_taken_whatever_its_size() -> None:
    in_flight = RequestsInFlight(2 * MIB, MIB)
    share = Share(in_flight, "192.0.2.1", known=False)
    for _ in range(32):
        share.add(MIB)
    assert (in_flight.bytes, in_flight.strangers_bytes) == (32 * MIB, 32 * MIB)
    share.release()
    assert (in_flight.bytes, in_flight.strangers_bytes) == (0, 0)


def test_the_addresses_of_a_network_share_its_limit() -> None:
    in_flight = RequestsInFlight(64 * MIB, 4 * MIB)
    Share(in_flight, "2001:db8::1", known=True).add(3 * MIB)
    with pytest.raises(TooManyRequests, match="3,145,728"):
        Share(in_flight, "2001:db8::2", known=True).add(MIB)
    Share(in_flight, "2001:db8:0:1::1", known=True).add(MIB)
