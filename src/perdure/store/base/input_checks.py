"""Checks of inputs and answers against schemas from workers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError
from msgspec import Raw

from perdure.store.base.schema_costs import extent, looks_at
from perdure.wire.agents.answer_forms import APPROVED, form_of, form_schema
from perdure.wire.agents.approvals import ANSWER_CHECK
from perdure.wire.base.codec import has_more_parts, read_json
from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import DEPTH_MAX
from perdure.wire.clock.triggers import is_made_by_server
from perdure.wire.runs.workflows import InputCheck, WorkflowDescription

CHECKED_BYTES_MAX: Final = 1 << 20
"""A larger input would hold the other verbs up."""
CHECKED_PARTS_MAX: Final = 50_000
"""Most entries and names in a checked input. Each takes some microseconds, in which all verbs wait."""
KEPT_MAX: Final = 1_000
"""Most compiled checks in memory."""
LOOKS_MAX: Final = 2_000_000
"""Most looks at parts of an input: a fifth of a second."""
EXPLAINED_MAX: Final = 100_000
"""Beyond this number of looks, a fault has no path, because a path needs all faults of a union."""
ANSWERS_KEPT_MAX: Final = 200
SHOWN_CHARS: Final = 300

Check = Callable[[Any], "tuple[str, str] | None"]
"""Returns path and fault of a wrong input."""
_FORMATS: Final[dict[str, Any]] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "decimal": Decimal,
    "base64": bytes,
}
_OURS: Final = "perdure:"
"""Prefix of formats that a check asserts."""
_INTEGER: Final = f"{_OURS}integer"
_PARTS: Final = ("properties", "$defs", "patternProperties", "dependentSchemas")
_VALUES: Final = ("enum", "const", "default", "examples")

logger = logging.getLogger("perdure.starts")


def check_input(check: Check, payload: bytes, at: str) -> None:
    """Raises BadValue with the path. `at` names the input in the request."""
    if len(payload) > CHECKED_BYTES_MAX or has_more_parts(payload, CHECKED_PARTS_MAX):
        return
    fault = check(read_json(payload))
    if fault is not None:
        path, text = at + fault[0], fault[1]
        raise BadValue(f"{path}: {text}", {"path": path})


def check_answer(question: bytes | None, schema: bytes | None, answer: bytes, at: str) -> None:
    """Checks against the schema of `answer_type` or, without one, the form of the question. Raises BadValue."""
    if schema is not None:
        check_input(_answer_check(schema), answer, at)
    elif question is not None and b'"_form"' in question and len(question) + len(answer) <= CHECKED_BYTES_MAX:
        form = form_of(question)
        if form.fields is None:
            return
        given = read_json(answer)
        if not isinstance(given, dict):  # such an answer may stand for the field that matters
            names = [APPROVED] if form.decides else [field.key for field in form.fields]
            if len(names) > 1:
                raise BadValue(f"{at}: must be an object with the fields of the form", {"path": at})
            answer = msgspec.json.encode(given := {names[0]: given})
        rejects = form.decides and given.get(APPROVED) is False
        expected = form_schema(form.fields, needed={APPROVED} if rejects else None)
        check_input(_answer_check(msgspec.json.encode(expected)), answer, at)


def find_check(name: str) -> Check | None:
    return _compiled.get(name)


def compile_check(described: bytes) -> Check:
    """Keeps the check for `find_check`. If the library refuses the schema, the check accepts everything."""
    said = msgspec.json.decode(described, type=WorkflowDescription)
    if len(_compiled) >= KEPT_MAX:
        _compiled.clear()
    check = _compiled[said.check_name or ""] = _make(said)
    return check


_compiled: Final[dict[str, Check]] = {}


@functools.lru_cache(maxsize=ANSWERS_KEPT_MAX)
def _answer_check(schema: bytes) -> Check:
    found = read_json(schema)
    how = found.get(ANSWER_CHECK, InputCheck.EXACT) if isinstance(found, dict) else None
    if how not in tuple(InputCheck):
        return lambda answer: None
    return _make(WorkflowDescription(input_check=InputCheck(how), input_schema=Raw(schema)))


def _make(said: WorkflowDescription) -> Check:
    if not said.takes_input:
        return _check_none
    is_exact = said.input_check is InputCheck.EXACT
    schema = _asserted(msgspec.json.decode(said.input_schema or b"{}"), is_exact)
    try:
        validator = Draft202012Validator(
            schema,
            validate_formats=True,
            formats=_checked_formats(is_exact),
            keywords={_INTEGER: _Integer},
            retriever=_refuse,  # a schema must not make the server fetch anything
            pattern_options=RegexOptions(),  # in linear time
        )
    except ValueError as error:
        logger.warning("Inputs are not checked against a schema that cannot be compiled: %s", error)
        return lambda payload: None

    looks = functools.cache(functools.partial(looks_at, schema))
    is_cheap = looks(DEPTH_MAX) * CHECKED_PARTS_MAX <= LOOKS_MAX

    def cost(payload: Any) -> float:
        depth, parts = extent(payload)
        return looks(depth) * parts

    def check(payload: Any) -> tuple[str, str] | None:
        if not is_cheap and cost(payload) >= LOOKS_MAX:
            return None
        if validator.is_valid(payload) or (payload is None and said.input_optional):
            return None
        if cost(payload) > EXPLAINED_MAX:
            return "", "does not fit the schema"
        return _fault(_deepest(next(validator.iter_errors(payload))), payload)

    return check


def _check_none(payload: Any) -> tuple[str, str] | None:
    if payload is None or payload == {} or is_made_by_server(payload):
        return None
    return "", "the workflow takes no input; leave it out, or send null"


def _asserted(schema: Any, is_exact: bool) -> Any:
    """The schema without formats that the worker's decoder ignores."""
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for name, part in schema.items():
        if name in _PARTS and isinstance(part, dict):
            made[name] = {key: _asserted(one, is_exact) for key, one in part.items()}
        elif name in _VALUES:
            made[name] = part
        elif isinstance(part, list):
            made[name] = [_asserted(one, is_exact) for one in part]
        else:
            made[name] = _asserted(part, is_exact)
    made.pop("uniqueItems", None)  # a set may be given an item twice
    said = made.pop("format", None) or made.pop("contentEncoding", None)
    if isinstance(said, str) and said in _FORMATS:
        made["format"] = _OURS + said
    if is_exact and said == "decimal":
        made["type"] = ["string", "number"]
    if is_exact and made.get("type") == "integer":
        made[_INTEGER] = True
    return made


class _Integer:
    """JSON Schema takes 1.0 for an integer."""

    def __init__(self, *_: Any) -> None: ...

    def validate(self, value: Any) -> None:
        if isinstance(value, float):
            raise ValueError(f'{value} is not of type "integer"')


@functools.cache
def _checked_formats(is_exact: bool) -> dict[str, Callable[[str], bool]]:
    return {_OURS + name: functools.partial(_fits, kind, is_exact) for name, kind in _FORMATS.items()}


def _fits(kind: Any, is_exact: bool, text: str) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return not is_exact and _is_wide(kind, text)
    return True


def _is_wide(kind: Any, text: str) -> bool:
    """Models read more than schemas say."""
    if kind not in (datetime, date, time, UUID):
        return True
    try:
        return bool(float(text)) or True
    except ValueError:
        pass
    try:
        return bool(UUID(text) if kind is UUID else kind.fromisoformat(text)) or True
    except ValueError:
        return False


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not part of the schema")


def _deepest(error: ValidationError) -> ValidationError:
    """The alternative of a union that fits furthest."""
    context = getattr(error.kind, "context", None)
    inner = [_deepest(one) for branch in context or () for one in branch]
    best = max(inner, key=lambda one: len(one.instance_path), default=error)
    return best if len(best.instance_path) > len(error.instance_path) else error


def _fault(error: ValidationError, payload: Any) -> tuple[str, str]:
    path: list[str | int] = []
    for part in error.instance_path:
        name = part if isinstance(payload, list) else str(part)  # the library tells "1" as a number
        path.append(name)
        payload = payload[name]
    missing = getattr(error.kind, "property", None)
    if isinstance(missing, str):
        return _joined([*path, missing]), "is missing"
    message = error.message if len(error.message) <= SHOWN_CHARS else error.message[:SHOWN_CHARS] + "…"
    return _joined(path), message.replace(_OURS, "")


def _joined(path: list[str | int]) -> str:
    """
    >>> _joined(["lines", 0, "sku"])
    '.lines[0].sku'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
