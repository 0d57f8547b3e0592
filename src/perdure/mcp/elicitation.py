"""A question of a run as an elicitation: a message and a flat form; and a person's input as the answer."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from perdure.mcp.lines import VALUE_CHARS, cut, value
from perdure.wire.agents.answer_forms import JSON_ANSWER, Field, Form, json_or_text, question_form
from perdure.wire.agents.approvals import OpenQuestion
from perdure.wire.base.wording import plain
from perdure.wire.runs.executions import ResumeExecution

Json = Any

_JSON_SCHEMA: Final = {
    "type": "object",
    "properties": {JSON_ANSWER: {"type": "string", "description": "JSON, or a text, which is sent as a string."}},
    "required": [JSON_ANSWER],
}
_KINDS: Final = {"boolean": "boolean", "integer": "integer", "number": "number"}


class Elicitation(NamedTuple):
    key: str
    """The question's name, different from all questions of the run."""
    message: str
    schema: dict[str, Json]


def key_of(question: OpenQuestion) -> str:
    """Two steps may ask at the same microsecond."""
    return f"{question.question}/{question.step_key}"


def elicitation(question: OpenQuestion) -> Elicitation:
    form = question_form(question)
    fields = form.fields
    schema = _JSON_SCHEMA if fields is None else _object(fields)
    return Elicitation(key_of(question), _message(question, form), schema)


def answer(question: OpenQuestion, content: Mapping[str, Json]) -> ResumeExecution:
    """The operation to answer exactly this question."""
    form = question_form(question)
    said: Json
    if form.fields is None:
        said = json_or_text(content.get(JSON_ANSWER))
    elif form.bare:
        said = _chosen(form.fields[0], content.get(form.fields[0].key))
    else:
        given = {field.key: _chosen(field, content.get(field.key)) for field in form.fields if field.key in content}
        said = {field.key: field.empty[0] for field in form.fields if field.empty} | given
    data = Raw(msgspec.json.encode(said))
    return ResumeExecution(question.execution_id, question.step_key, data, question.question)


def _message(question: OpenQuestion, form: Form) -> str:
    lines = [f"{plain(question.workflow_id)} asks under {plain(question.step_key)}:"]
    lines += [plain(text) for text in (form.title, form.description) if text]
    lines += [value(msgspec.json.encode(data)) for data in (form.context, form.data) if data is not None]
    return cut("\n".join(lines), VALUE_CHARS)


def _object(fields: tuple[Field, ...]) -> dict[str, Json]:
    schema: dict[str, Json] = {"type": "object", "properties": {field.key: _property(field) for field in fields}}
    if required := [field.key for field in fields if field.required]:
        schema["required"] = required
    return schema


def _property(field: Field) -> dict[str, Json]:
    about = {"title": plain(field.label), "description": plain(field.description) or None, "default": field.default}
    if field.kind in ("select", "multiselect"):
        choices = [{"const": str(n), "title": plain(option.label)} for n, option in enumerate(field.options)]
        about["default"] = None
        if field.kind == "select":
            return {"type": "string", "oneOf": choices} | _known(about)
        return {"type": "array", "items": {"anyOf": choices}} | _known(about)
    kind = _KINDS.get(field.kind, "string")
    if kind == "string":
        about["default"] = field.default if isinstance(field.default, str) else None
    least, most = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
    bounds = {least: field.least, most: field.most} if kind != "boolean" else {}
    return {"type": kind} | ({"format": "date"} if field.kind == "date" else {}) | _known(about) | _known(bounds)


def _known(given: Mapping[str, Json]) -> dict[str, Json]:
    return {name: one for name, one in given.items() if one is not None}


def _chosen(field: Field, given: Json) -> Json:
    """Choices travel by number, because values may be of any type."""
    if field.kind == "multiselect":
        return [_option(field, one) for one in given] if isinstance(given, list) else given
    return _option(field, given) if field.kind == "select" else given


def _option(field: Field, given: Json) -> Json:
    by_number = {str(n): option.value for n, option in enumerate(field.options)}
    return by_number.get(given, given) if isinstance(given, str) else given
