"""Routes from operations."""

import inspect
from types import NoneType
from typing import Any

from msgspec import Raw, Struct, structs

from perdure.engine.service import Scope
from perdure.server.bodies import USUAL, VALUES
from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Caller, Route, Routes
from perdure.wire.operation import Noun, Operation, reply_type, server_form
from perdure.wire.record import choices, writer


def mount(noun: Noun) -> Routes:
    routes = Routes(noun.tag)
    routes.all.extend(_route(operation) for operation in noun.all)
    return routes


def _route(operation: type[Operation[Any]]) -> Route:
    endpoint = operation.endpoint
    how, reply = server_form(operation), reply_type(operation)
    show = None if reply is NoneType else writer(reply)
    types: dict[str, Any] = dict.fromkeys(endpoint.path_names, str)
    if how.query is not None:
        types["query"] = how.query
    if how.body is not None:
        types["body"] = how.body

    async def handler(call: Call, *values: Any) -> object:
        if endpoint.project_in_query:
            call.check_project(values[len(endpoint.path_names)].project_id)
        assert call.principal is not None  # the route has a role
        scope = Scope(call.project_id, idempotency(call) if endpoint.idempotent else None, call.principal.role)
        answer = await call.engine.serve(scope, how.make(*values))
        return None if show is None else show(answer)

    handler.__name__, handler.__doc__ = endpoint.name, operation.__doc__
    handler.__annotations__ = types | {"return": NoneType if show is None else show.type}
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("call", *types)]
    handler.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # routes read it
    return Route(
        endpoint.method,
        endpoint.path,
        handler,
        tag=endpoint.tag,
        role=endpoint.role,
        caller=Caller.PROJECT,
        contract=endpoint.contract,
        idempotent=endpoint.idempotent,
        headers=(),
        media_type="application/json",
        body_bytes_max=VALUES if how.body is not None and _takes_values(how.body) else USUAL,
    )


def _takes_values(body: type[Struct]) -> bool:
    """Whether a field of a body holds a user's JSON, as a payload does. Such bodies have no limit of their own."""
    return any(Raw in choices(field.type) for field in structs.fields(body))
