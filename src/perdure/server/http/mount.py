"""Routes from operations."""

import hashlib
import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache
from types import GenericAlias
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import Raw, Struct, structs

from perdure.engine.base.service import Scope
from perdure.server.http.bodies import USUAL, VALUES
from perdure.server.http.problems import Reply, json_headers
from perdure.server.http.routing import Route, RouteCall, Routes
from perdure.server.http.streams import EventStream, frame
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.wire.base.access import Caller
from perdure.wire.base.codec import KEY_BYTES_MAX, check_name
from perdure.wire.base.errors import BadRequest, PerdureError
from perdure.wire.base.operation import Listed, Noun, Operation, list_record, reply_type, server_form, streamed
from perdure.wire.base.record import Record, to_json
from perdure.wire.runs.requests import PAYLOADS_APART, PROTOCOL_VERSION, ClaimReply

VERSION_HEADER: Final = "Perdure-Protocol"
_VERSION: Final = str(PROTOCOL_VERSION).encode()
_PAYLOADS, _APART = (text.lower().encode() for text in PAYLOADS_APART)


@cache
def mount(noun: Noun) -> Routes:
    """Servers of one process share the routes."""
    routes = Routes(noun.tag)
    routes.all.extend(_route(operation) for operation in noun.all)
    return routes


def _route(operation: type[Operation[Any]]) -> Route:
    endpoint, options = operation.endpoint, operation.endpoint.options
    how = server_form(operation)
    reply = reply_type(operation)
    is_listed, show_list = get_origin(reply) is Listed, list_record(operation)
    streams = bool(streamed(operation))
    if show_list is not None:
        reply = show_list
    elif "reply" in options:
        reply = type(options["reply"], (reply,), {"shown_as": options["reply"], "__doc__": reply.__doc__})
    types: dict[str, Any] = dict.fromkeys(endpoint.path_names, str)
    if how.query is not None:
        types["query"] = how.query
    if how.body is not None:
        types["body"] = how.body
    headers = [name.lower().encode() for name in how.headers]
    of_project = "project_id" in operation.__struct_fields__ and "project_id" not in endpoint.path_names
    protocol = options.get("protocol", False)
    held = None if protocol else options.get("held")  # claims limit their own waits
    idempotent = endpoint.idempotent
    # A change goes on without its caller, and what is held watches by itself.
    reads = endpoint.method == "GET" or options.get("repeated") == "reads again"
    looks = reads and not (protocol or streams or options.get("held"))

    async def handler(call: RouteCall, *values: Any) -> object:
        if protocol:
            check_version(call)
        op = how.make(*values, *map(call.header, headers)) if headers else how.make(*values)
        if of_project:
            call.check_project(op.project_id)
        if held is not None and (getattr(op, held) or 0) > call.settings.poll_seconds_max:
            op = structs.replace(op, **{held: call.settings.poll_seconds_max})
        if streams and (seen := call.header(b"last-event-id")):
            op = structs.replace(op, last_event_id=seen)
        key = _idempotency(call) if idempotent else None
        if protocol:
            scope = Scope(call.project_id, key, call.principal, call.poll_of_worker, call.leases)
        else:
            scope = Scope(call.project_id, key, call.principal, call.poll)
        if looks:
            async with call.poll(until_closing=False):
                answer = await call.engine.serve(scope, op)
        else:
            answer = await call.engine.serve(scope, op)
        if type(answer) is ClaimReply and answer.items and call.headers.get(_PAYLOADS) == _APART:
            body = answer.write_apart()
            return Reply(200, body, json_headers(len(body), kind=b"application/octet-stream"))
        if show_list is not None:
            return show_list(*answer[: len(show_list.__struct_fields__)])
        if is_listed:
            call.goes_on(answer.next_cursor)
            return answer.items
        if streams:
            return EventStream(_frames(answer.pages))
        return answer

    handler.__name__, handler.__doc__ = endpoint.name, operation.__doc__
    shown = EventStream if streams else GenericAlias(list, get_args(reply)) if get_origin(reply) is Listed else reply
    handler.__annotations__ = types | {"return": shown}
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("call", *types)]
    handler.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # routes read it
    return Route(
        endpoint.method,
        endpoint.path,
        handler,
        tag=endpoint.tag,
        role=endpoint.role,
        caller=options.get("caller", Caller.USER if endpoint.role is None else Caller.PROJECT),
        contract=options.get("contract", False),
        bodiless=options.get("bodiless", False),
        idempotent=idempotent,
        repeated=options.get("repeated") or ("no effect" if protocol else None),
        headers=((VERSION_HEADER,) if protocol else ("Last-Event-ID",) if streams else ()) + how.headers,
        body_bytes_max=options.get("body_bytes_max") or _body_bytes_max(how.body),
        rest=options.get("rest", False),
        paged=get_origin(reply) is Listed and "cursor" in operation.__struct_fields__,
    )


def _idempotency(call: RouteCall) -> Idempotency | None:
    """Requests with equal paths and bytes are the same."""
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    check_name(key, where="header Idempotency-Key", max_bytes=KEY_BYTES_MAX)
    return Idempotency(call.route.path, key, hashlib.sha256(call.raw_path + b"\n" + call.body).hexdigest())


async def _frames(pages: AsyncGenerator[list[tuple[str, Record]], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        try:
            async for page in pages:
                yield b"".join(frame(_encoded(record), id=cursor, event=record.sent_as) for cursor, record in page)
        except PerdureError:
            return  # the execution was deleted, or the store is closed


def _encoded(record: Record) -> bytes:
    """Many streams send the same record; a record with a `__dict__` keeps its bytes there."""
    kept: dict[str, bytes] | None = getattr(record, "__dict__", None)
    if kept is None:
        return msgspec.json.encode(to_json(record))
    if "json" not in kept:
        kept["json"] = msgspec.json.encode(to_json(record))
    return kept["json"]


def check_version(call: RouteCall) -> None:
    version = call.headers.get(b"perdure-protocol")
    if version != _VERSION:
        said = "none" if version is None else repr(version.decode("latin-1"))
        raise BadRequest(
            f"The header {VERSION_HEADER} says {said}; this server speaks {PROTOCOL_VERSION}. Install the same release "
            "of perdure on both sides."
        )


def _body_bytes_max(body: type[Struct] | None) -> int:
    """A body with a user's JSON has no separate limit."""
    return VALUES if body is not None and _holds_values(body) else USUAL


def _holds_values(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return any(_holds_values(field.type) for field in structs.fields(kind))
    return kind is Raw or any(map(_holds_values, get_args(kind)))
