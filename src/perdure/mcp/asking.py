"""The seam to the operations: a call in the server's process, or the transport of a client."""

from typing import Final, NamedTuple, Protocol, TypeVar

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest, NotFound
from perdure.wire.base.fields import is_uuid
from perdure.wire.base.operation import Operation
from perdure.wire.insight.summaries import ListSummaries

R = TypeVar("R")

PREFIX_CHARS_MIN: Final = 8


class Ask(Protocol):
    """Raises the errors of `perdure.wire.base.errors`, including refusals of the caller's role."""

    async def __call__(self, op: Operation[R], key: str | None = None) -> R:
        """A repeat with the same `key` has no effect."""
        ...


class AskCaller(NamedTuple):
    ask: Ask
    role: Role | None
    """None: unknown here. The server still checks the role."""


async def full_id(ask: Ask, id: str) -> str:
    """Lists show the beginning of an id. Raises `NotFound`, and `BadRequest` if several begin so."""
    id = id.strip().lower()
    if is_uuid(id):
        return id
    if len(id) < PREFIX_CHARS_MIN:
        raise BadRequest(f"{id!r} is not an id; give at least {PREFIX_CHARS_MIN} characters of it.")
    found = [one.id for one in (await ask(ListSummaries(q=id, limit=20))).executions if one.id.startswith(id)]
    if not found:
        raise NotFound(f"Execution {id!r} does not exist.")
    if len(found) > 1:
        raise BadRequest(f"Several executions begin with {id!r}: {', '.join(found)}.")
    return found[0]
