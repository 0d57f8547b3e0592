"""A suspended step's data, or the schema of its answer, as a form, and a person's input as the answer.

Data and schema are untrusted. If `_form` is invalid and the schema has parts without a simple field, the page asks for
JSON.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure.wire.agents.approvals import ANSWER_CHECK, OpenQuestion, Question
from perdure.wire.base.codec import check_json
from perdure.wire.base.errors import BadValue

FIELDS_MAX: Final = 50
OPTIONS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 100_000
LINE_CHARACTERS_MAX: Final = 200
"""A longer text gets several lines."""
DEEPEST: Final = 20
APPROVED: Final = "approved"
JSON_ANSWER: Final = "answer"

_NUMBER: Final = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")
_INTEGER: Final = re.compile(r"-?[0-9]{1,300}")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(("boolean", "bool", "checkbox"), "boolean"),
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
    empty: tuple[Any, ...] = ()
    """An empty field's value, if the answer must have one."""
    least: float | None = None
    """The least number, or the least length of a text."""
    most: float | None = None
    beyond: float | None = None
    """An exclusive lower bound."""
    below: float | None = None


class Form(NamedTuple):
    fields: tuple[Field, ...] | None
    """The fields; None asks for the answer as JSON."""
    title: str | None = None
    description: str | None = None
    context: Any = None
    source: str | None = None
    tool: str | None = None
    data: Any = None
    """The other data to show."""
    bare: bool = False
    """Whether the answer is the value of the only field, not an object."""

    @property
    def decides(self) -> bool:
        return any(field.key == APPROVED and field.kind == "boolean" for field in self.fields or ())


def question_form(question: Question | OpenQuestion) -> Form:
    schema = question.answer_schema
    return form_of(bytes(question.data), None if schema is None else bytes(schema))


def form_of(data: bytes, schema: bytes | None = None) -> Form:
    """Make the form of data, or of the answer's JSON Schema if the data has no fields."""
    shown = json.loads(data)
    expected, bare = (None, False) if schema is None else _schema_fields(json.loads(schema))
    if not isinstance(shown, dict):
        return Form(expected, data=shown, bare=bare)
    notify = shown.get("_notify")
    said = shown.get("_form")
    rest = {name: value for name, value in shown.items() if name not in _OURS}
    found = said if isinstance(said, dict) else {}
    said_fields = _fields(found.get("fields"))
    message = notify.get("message") if isinstance(notify, dict) else None
    return Form(
        title=_text(found.get("title")),
        description=_text(message) or _text(found.get("description")),
        context=found.get("context"),
        source=_text(shown.get("_source")),
        tool=_text(shown.get("_tool")),
        fields=expected if said_fields is None else said_fields,
        data=rest or None,
        bare=bare and said_fields is None,
    )


def form_schema(fields: Sequence[Field], needed: Collection[str] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a form's answers. Texts and dates take any value. Only fields in `needed` are
    required."""
    required = [field.key for field in fields if field.required and (needed is None or field.key in needed)]
    return {
        ANSWER_CHECK: "wide",
        "type": "object",
        "properties": {field.key: _value_schema(field) for field in fields},
        "required": required,
    }


def _value_schema(field: Field) -> dict[str, Any]:
    null = [] if field.required else [None]
    chosen = {"enum": [option.value for option in field.options]}
    match field.kind:
        case "boolean" | "number" | "integer":
            return {"type": [field.kind, *["null" for _ in null]]}
        case "select":
            return {"enum": [*chosen["enum"], *null]}
        case "multiselect":
            return {"type": ["array", *["null" for _ in null]], "items": chosen}
    return {}


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
    """Read options: texts, numbers, or objects with `value` and `label`. None if invalid."""
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


def _schema_fields(schema: Any) -> tuple[tuple[Field, ...] | None, bool]:
    """Return the fields of an object or the one field of another value, and whether the field stands alone."""
    found, nullable = _resolved(schema, schema)
    properties = found.get("properties")
    if found.get("type") != "object" or not isinstance(properties, dict) or nullable:
        field = _schema_field("answer", schema, schema, needed=True)
        return (None, False) if field is None else ((field,), True)
    required = found.get("required")
    needed = required if isinstance(required, list) else []
    fields = [_schema_field(name, one, schema, needed=name in needed) for name, one in properties.items()]
    if not 1 <= len(fields) <= FIELDS_MAX or None in fields:
        return None, False
    return tuple(field for field in fields if field is not None), False


def _schema_field(key: str, schema: Any, root: Any, *, needed: bool) -> Field | None:
    """Return the schema's field, or None if only JSON can express the value."""
    found, nullable = _resolved(schema, root)
    kind, options = _schema_kind(found, root)
    if kind is None:
        return None
    if kind == "text" and (_bound(found, "maxLength") or 0) > LINE_CHARACTERS_MAX:
        kind = "textarea"
    numeric = kind in ("integer", "number")
    is_text = kind in ("text", "textarea") and found.get("format") is None and not found.get("minLength")
    empty: tuple[Any, ...] = ()
    if needed and (nullable or is_text or kind == "multiselect"):
        empty = (None if nullable else "" if is_text else [],)
    least, most = ("minimum", "maximum") if numeric else ("minLength", "maxLength")
    return Field(
        key=key,
        kind=kind,
        label="Your answer" if schema is root else key or "?",
        required=needed and not empty,
        default=found.get("default"),
        description="\n".join(filter(None, (_text(found.get("description")), _said_format(found)))),
        options=options,
        empty=empty,
        least=_bound(found, least),
        most=_bound(found, most),
        beyond=_bound(found, "exclusiveMinimum"),
        below=_bound(found, "exclusiveMaximum"),
    )


def _schema_kind(schema: dict[str, Any], root: Any) -> tuple[str | None, tuple[Option, ...]]:
    values = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
    if values is not None:
        options = _options([{"value": one} for one in values if one is not None]) if isinstance(values, list) else None
        return ("select", options) if options else (None, ())
    match schema.get("type"):
        case "array":
            items, _ = _resolved(schema.get("items"), root)
            kind, options = _schema_kind(items, root) if "enum" in items else (None, ())
            return ("multiselect" if kind else None, options)
        case "string":
            return "date" if schema.get("format") == "date" else "text", ()
        case "boolean" | "integer" | "number" as kind:
            return str(kind), ()
    return None, ()


def _resolved(schema: Any, root: Any) -> tuple[dict[str, Any], bool]:
    """Resolve references and wrappers that only add null; also return whether null is allowed."""
    nullable = False
    for _ in range(DEEPEST):
        if not isinstance(schema, dict):
            return {}, nullable
        around = {name: one for name, one in schema.items() if name not in ("$ref", "anyOf", "oneOf", "allOf")}
        reference = schema.get("$ref")
        choices = next((schema[name] for name in ("anyOf", "oneOf", "allOf") if name in schema), None)
        if isinstance(reference, str):
            name = reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
            within = root.get("$defs")
            inner = within.get(name) if isinstance(within, dict) else None
        elif isinstance(choices, list):
            some = [one for one in choices if not (isinstance(one, dict) and one.get("type") == "null")]
            nullable = nullable or len(some) < len(choices)
            inner = some[0] if len(some) == 1 else None
        else:
            types = schema.get("type")
            if isinstance(types, list) and "null" in types and len(types) == 2:
                return {**schema, "type": types[types.index("null") - 1]}, True
            return schema, nullable
        if not isinstance(inner, dict):
            return {}, nullable
        schema = {**inner, **around}
    return {}, nullable


def _bound(schema: Mapping[str, Any], name: str) -> float | None:
    found = schema.get(name)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _said_format(schema: Mapping[str, Any]) -> str | None:
    pattern, format = _text(schema.get("pattern")), _text(schema.get("format"))
    if pattern is not None:
        return f"Must match {pattern}"
    return None if format in (None, "date") else f"A {format}"


def read_answer(form: Form, sent: Mapping[str, list[str]]) -> tuple[bytes | None, dict[str, str]]:
    """Return the answer, or errors by field. Fields are named f0, f1, …, because their keys are untrusted."""
    if form.fields is None:
        return _read_json(sent.get(JSON_ANSWER, [""])[0])
    answer: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for n, field in enumerate(form.fields):
        values = sent.get(f"f{n}", [])
        error, value = _read_field(field, values)
        if error is not None:
            errors[f"f{n}"] = error
        elif value is not None:
            answer[field.key] = value
        elif field.empty:
            answer[field.key] = field.empty[0]
    if errors:
        return None, errors
    if form.bare:
        return json.dumps(answer[form.fields[0].key], ensure_ascii=False).encode(), {}
    return json.dumps(answer, ensure_ascii=False).encode(), {}


def field_errors(form: Form, error: BadValue) -> dict[str, str]:
    """Put the server's refusal at its field, or at the first field."""
    if form.fields is None:
        return {JSON_ANSWER: error.message}
    path = str((error.details or {}).get("path"))
    at = [n for n, field in enumerate(form.fields) if path.removeprefix(f"data.{field.key}")[:1] in ("", ".", "[")]
    return {f"f{at[0] if at else 0}": error.message}


def json_or_text(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given


def _read_json(text: str) -> tuple[bytes | None, dict[str, str]]:
    data = text.strip().encode()
    try:
        check_json(data, where="answer")
    except BadValue as error:
        return None, {JSON_ANSWER: f"This is not valid JSON ({error.message}). A text needs its quotes."}
    return data, {}


def _read_field(field: Field, values: list[str]) -> tuple[str | None, Any]:
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
        if not _INTEGER.fullmatch(text.strip()):
            return "This must be a whole number.", None
        return _in_bounds(field, int(text))
    if field.kind == "number":
        error, number = _read_number(text.strip())
        return (error, None) if error is not None else _in_bounds(field, number)
    if field.kind == "date" and not _DATE.fullmatch(text.strip()):
        return "This must be a date, as 2026-01-31.", None
    if field.least is not None and len(text) < field.least:
        return f"This needs at least {field.least:,} characters.", None
    if field.most is not None and len(text) > field.most:
        return f"This may have at most {field.most:,} characters.", None
    return None, text


def _in_bounds(field: Field, number: int | float) -> tuple[str | None, Any]:
    if field.least is not None and number < field.least:
        return f"This must be at least {field.least:,}.", None
    if field.most is not None and number > field.most:
        return f"This must be at most {field.most:,}.", None
    if field.beyond is not None and number <= field.beyond:
        return f"This must be more than {field.beyond:,}.", None
    if field.below is not None and number >= field.below:
        return f"This must be less than {field.below:,}.", None
    return None, number


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
