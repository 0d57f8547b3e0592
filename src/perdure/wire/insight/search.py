"""A search for everything that has a name."""

from typing import Annotated, Final

from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import between
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.insight.summaries import ExecutionSummary

TEXT_CHARS_MAX: Final = 512


class SearchResults(Record, frozen=True):
    """Names are sorted."""

    executions: list[ExecutionSummary]
    """Executions found by id, or by the beginning of the key or of one of the key's next three words."""
    workflows: list[str]
    agents: list[str]
    queues: list[str]
    """Queues with limits, and queues named differently from their workflow."""
    topics: list[str]
    sessions: list[str]
    deployments: list[str]
    """Deployments in use."""


def _text(value: str, where: str) -> str:
    if not 1 <= len(value) <= TEXT_CHARS_MAX:
        raise BadRequest(
            f"query.{where}: must have 1 to {TEXT_CHARS_MAX} characters, got {len(value)}.", {"path": f"query.{where}"}
        )
    return value


search: Final = Noun("Search")


@search.get("/api/v1/search")
class Search(Operation[SearchResults], frozen=True):
    """Find executions, workflows, agents, queues, topics, sessions and deployments by the beginning of a name."""

    q: Annotated[str, _text]
    """The beginning of a name or key, or of an id (8 characters or more); case counts."""
    limit: Annotated[int, between(1, 5)] = 5
    """How many of each kind: 1 to 5."""
