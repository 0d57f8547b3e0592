"""A suspended step's data as a form, and a person's input as the answer.

The data is untrusted. If `_form` is invalid, the page shows the data and asks for JSON.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from perdure.wire.codec import check_json
from perdure.wire.errors import BadValue

FIELDS_MAX: Final = 50
OPTIONS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 100_000
APPROVED: Final = "approved"
JSON_ANSWER: Final = "answer"

_BOOLEAN: Final = frozenset({"boolean", "bool", "checkbox"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")
_INTEGER: Final = re.compile(r"-?[0-9]{1,300}")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(_BOOLEAN, "boolean"),
    **dict.fromkeys(("number", "float"), "number"),
    **dict.fromkeys(("integer", "int"), "integer"),
    **dict.fromkeys(("select", "enum", "choice", "radio"), "select"),
    **dict.fromkeys(("multiselect", "multi_select", "checkboxes"), "multiselect"),
    **dict.fromkeys(("textarea", "multiline"), "textarea"),
    "date": "date",
}
# For the page itself; not shown.
_OURS: Final = frozenset({"_form", "_notify", "_source", "_tool", "_approval_url"})


class Option(NamedTuple):
    value: Any
    label: str


class Field(NamedTuple):
    key: str
    kind: str
    """boolean, text, textarea, number, integer, date, select or multiselect."""
    label: str
    required: bool
    default: Any
    description: str
    options: tuple[Option, ...]


class Form(NamedTuple):
    title: str | None
    description: str | None
    context: Any
    source: str | None
    tool: str | None
    fields: tuple[Field, ...] | None
    """None: the answer is asked for as JSON."""
    data: Any
    """The other data to show."""

    @property
    def decides(self) -> bool:
        return any(field.key == APPROVED and field.kind == "boolean" for field in self.fields or ())


def form_of(data: bytes) -> Form:
    shown = json.loads(data)
    if not isinstance(shown, dict):
        return Form(title=None, description=None, context=None, source=None, tool=None, fields=None, data=shown)
    notify = shown.get("_notify")
    said = shown.get("_form")
    rest = {name: value for name, value in shown.items() if name not in _OURS}
    found = said if isinstance(said, dict) else {}
    message = notify.get("message") if isinstance(notify, dict) else None
    return Form(
        title=_text(found.get("title")),
        description=_text(message) or _text(found.get("description")),
        context=found.get("context"),
        source=_text(shown.get("_source")),
        tool=_text(shown.get("_tool")),
        fields=_fields(found.get("fields")),
        data=rest or None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _fields(given: object) -> tuple[Field, ...] | None:
    if not isinstance(given, list) or not 1 <= len(given) <= FIELDS_MAX:
        return None
    found: dict[str, Field] = {}
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("key"), str) or one["key"] in found:
            return None
        key: str = one["key"]
        options = _options(one.get("options"))
        kind = _TYPES.get(str(one.get("type")).lower(), "text")
        if options is None or (kind in ("select", "multiselect") and not options):
            return None
        if kind == "text" and options:
            kind = "select"
        found[key] = Field(
            key=key,
            kind=kind,
            label=_text(one.get("label")) or key or "?",
            required=one.get("required") is True,
            default=one.get("default"),
            description=_text(one.get("description")) or "",
            options=options,
        )
    return tuple(found.values())


def _options(given: object) -> tuple[Option, ...] | None:
    """Texts, numbers, or objects with `value` and `label`. None if invalid."""
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > OPTIONS_MAX:
        return None
    found: list[Option] = []
    for one in given:
        if isinstance(one, dict):
            if "value" not in one:
                return None
            found.append(Option(one["value"], _text(one.get("label")) or _shown(one["value"])))
        else:
            found.append(Option(one, _shown(one)))
    return tuple(found)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_answer(form: Form, sent: Mapping[str, list[str]]) -> tuple[bytes | None, dict[str, str]]:
    """The answer, or errors by field. Fields are named f0, f1, …, because their keys are untrusted."""
    if form.fields is None:
        return _read_json(sent.get(JSON_ANSWER, [""])[0])
    answer: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for n, field in enumerate(form.fields):
        values = sent.get(f"f{n}", [])
        error, value = _read(field, values)
        if error is not None:
            errors[f"f{n}"] = error
        elif value is not None:
            answer[field.key] = value
    if errors:
        return None, errors
    return json.dumps(answer, ensure_ascii=False).encode(), {}


def _read_json(text: str) -> tuple[bytes | None, dict[str, str]]:
    data = text.strip().encode()
    try:
        check_json(data, where="answer")
    except BadValue as error:
        return None, {JSON_ANSWER: f"This is not valid JSON ({error.message}). A text needs its quotes."}
    return data, {}


def _read(field: Field, values: list[str]) -> tuple[str | None, Any]:
    text = values[0] if values else ""
    if len(text) > TEXT_CHARACTERS_MAX:
        return f"This is longer than {TEXT_CHARACTERS_MAX:,} characters.", None
    text = text.replace("\r\n", "\n")
    if field.kind in ("select", "multiselect"):
        return _read_choice(field, values)
    if not text.strip():
        return ("This is needed." if field.required else None), None
    if field.kind == "boolean":
        return (None, text == "true") if text in ("true", "false") else ("Say yes or no.", None)
    if field.kind == "integer":
        return (None, int(text)) if _INTEGER.fullmatch(text.strip()) else ("This must be a whole number.", None)
    if field.kind == "number":
        return _read_number(text.strip())
    if field.kind == "date" and not _DATE.fullmatch(text.strip()):
        return "This must be a date, as 2026-01-31.", None
    return None, text


def _read_number(text: str) -> tuple[str | None, Any]:
    if _INTEGER.fullmatch(text):
        return None, int(text)
    if not _NUMBER.fullmatch(text) or float(text) in (float("inf"), float("-inf")):
        return "This must be a number.", None
    return None, float(text)


def _read_choice(field: Field, values: list[str]) -> tuple[str | None, Any]:
    chosen: list[Any] = []
    for text in values:
        if not text:
            continue  # "choose one"
        if not text.isascii() or not text.isdigit() or len(text) > 3 or int(text) >= len(field.options):
            return "Choose one of the options.", None
        chosen.append(field.options[int(text)].value)
    if not chosen:
        return ("Choose at least one." if field.required else None), None
    return None, chosen if field.kind == "multiselect" else chosen[0]
