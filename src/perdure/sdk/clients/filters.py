"""The filters of `Client.list`, and the matching fields of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias, TypedDict

from msgspec import json

from perdure.sdk.base.checks import checked_tags, checked_text
from perdure.sdk.workflows.start_options import checked_moment
from perdure.sdk.workflows.workflow import Workflow, named
from perdure.wire.runs.executions import ListFilters

Names: TypeAlias = str | Sequence[str]
"""One name, or several alternatives."""


class FindOptions(TypedDict, total=False):
    """Executions match all of these filters. `tags` are texts on the execution, `parent` and `root` are ids.

    `key_part` is the beginning of the key or of a later word in the key, `error` are words of the error, `field` is a
    searchable field with a value: `"payload.customer.id=7"`. Times need a zone.
    """

    workflow: Workflow[Any, Any] | Names | None
    status: Names | None
    phase: Names | None
    key: str | None
    key_part: str | None
    tags: Mapping[str, str] | None
    field: str | None
    error: str | None
    queue: Names | None
    session_id: str | None
    user_id: str | None
    batch_id: str | None
    deployment_id: Names | None
    parent: str | None
    root: str | None
    roots_only: bool
    retried: bool | None
    created_after: datetime | None
    created_before: datetime | None


def find_filters(options: Mapping[str, Any]) -> ListFilters:
    """Raises `BadValue`, and `TypeError` for an unknown filter."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _FIELDS:
            raise TypeError(f"list() has no filter {name!r}; it takes {', '.join(_FIELDS)}.")
        if value is not None:
            field, checked = _FIELDS[name]
            fields[field] = checked(value, name)
    return ListFilters(**fields)


def _names(value: Names, where: str) -> list[str]:
    return [checked_text(one, where) for one in ([value] if isinstance(value, str) else value)]


def _joined(value: Names, where: str) -> str:
    return ",".join(_names(value, where))


def _workflow(value: Workflow[Any, Any] | Names, where: str) -> str:
    return named(value)[0] if isinstance(value, Workflow) else _joined(value, where)


def _tags(value: Mapping[str, str], where: str) -> str:
    return json.encode(checked_tags(value)).decode()


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "workflow": ("workflow_id", _workflow),
    "status": ("status", _names),
    "phase": ("phases", _names),
    "key": ("key", checked_text),
    "key_part": ("key_part", checked_text),
    "tags": ("tags", _tags),
    "field": ("field", checked_text),
    "error": ("error", checked_text),
    "queue": ("queue_name", _joined),
    "session_id": ("session_id", checked_text),
    "user_id": ("user_id", checked_text),
    "batch_id": ("batch_id", checked_text),
    "deployment_id": ("deployment_id", _joined),
    "parent": ("parent_execution_id", checked_text),
    "root": ("root_execution_id", checked_text),
    "roots_only": ("roots", lambda value, _: True if value else None),
    "retried": ("retried", lambda value, _: bool(value)),
    "created_after": ("created_after_us", checked_moment),
    "created_before": ("created_before_us", checked_moment),
}
"""The field of each filter, and the check that makes the field's value."""
