"""The Python reference: Markdown pages from the signatures and docstrings of the public names."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import griffe

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = "reference"
LINE_MAX: Final = 84


@dataclass
class Sheet:
    """A page: its title, its first sentence, and the names on it."""

    title: str
    summary: str
    names: list[griffe.Object] = field(default_factory=list)


SHEETS: Final = {
    "workflows": ("Python: workflows", "Names of `perdure` with which workflows and steps are written."),
    "client": ("Python: clients", "Clients start executions, wait for them and steer them."),
    "errors": (
        "Python: errors",
        "Errors that Perdure raises. All are below `PerdureError`; [errors](../errors.md) says what each means.",
    ),
    "agents": ("Python: agents", "Names of `perdure.agents`: durable agents on Pydantic AI."),
    "testing": ("Python: testing", "Names of `perdure.testing`: workflows in the process of a test."),
    "embedded": ("Python: embedded", "Names of `perdure.embedded`: engine and worker inside a program."),
    "records": ("Python: records", "Records that clients return. Each has the fields of the HTTP API's JSON."),
}
CLIENT_MODULES: Final = {
    f"perdure.sdk.{name}"
    for name in ("clients.client", "clients.executions", "workflows.streams", "workflows.start_options")
}
BESIDE_CLIENT: Final = (
    "sdk.clients.sync.SyncClient",
    "sdk.clients.sync.SyncHandle",
    "sdk.clients.schedules.Schedules",
    "sdk.clients.queues.Queues",
    "sdk.clients.bulk.Bulk",
    "sdk.clients.project_stats.ProjectStats",
)
"""Reached from a client, so not names of `perdure`."""
EMBEDDED: Final = ("embedded", "embedded_sync", "Embedded", "SyncEmbedded")
FIRST: Final = (
    "workflow",
    "step",
    "Context",
    "current_step",
    "Client",
    "Handle",
    "durable",
    "DurableAgent",
    "embedded",
)
"""A page begins with these; the rest is in the order of the alphabet."""
MADE_BY_CODE: Final = {"Budget", "Compaction", "EventTrigger", "ManualClock", "Queue", "Registry", "Schedule"}
"""Classes that a program calls. Perdure makes the objects of the others."""
INTERNAL: Final = {
    "AgentInput": {"prompt", "messages", "dependencies", "limits", "differs_from"},
    "Compaction": {"cut"},
    "Registry": {"declared"},
    "Workflow": {"read_input", "begin", "starting"},
}
"""Methods with a docstring that are for Perdure itself."""
RECORD_BASES: Final = re.compile(r"Struct|Record|TypedDict|NamedTuple")
OF_DECLARATIONS: Final = {"shown_as", "sent_as", "answers_in_full", "is_active"}
"""Attributes of records, and of the context, that say nothing to users."""
WITH_PROPERTIES: Final = {"Context", "ExecutionInfo"}
"""Classes whose properties are all shown, also those whose name says enough."""
DESCRIPTOR: Final = re.compile(r"_\w+\[(.+)\]\(\)")
"""The value of a field that is read from a record: `_Moment[datetime]()`."""
PLAIN_TYPES: Final = {"Int64": "int", "Uuid": "str", "Time": "int", "Double": "float", "MaybeRaw": "object"}
"""Aliases of msgspec constraints. A time is in microseconds."""


def pages() -> dict[str, str]:
    """The Markdown of each page, by its path below docs/."""
    package = load()
    sheets = {name: Sheet(*words) for name, words in SHEETS.items()}
    for name in exports(package):
        found = final(package[name])
        module = found.path.rpartition(".")[0]
        home = "client" if module in CLIENT_MODULES else "errors" if is_error(found) else "workflows"
        sheets[home].names.append(found)
    sheets["client"].names += [final(package[path]) for path in BESIDE_CLIENT]
    for module in ("agents", "testing"):
        sheets[module].names += [
            final(package[module][name]) for name in exports(package[module]) if name not in exports(package)
        ]
    sheets["embedded"].names += [final(package["embedded"][name]) for name in EMBEDDED]
    shown = {one.path for sheet in sheets.values() for one in sheet.names}
    sheets["records"].names += records(sheets["client"].names, shown)
    for one in sheets.values():
        one.names.sort(key=_order)
    return {f"{FOLDER}/{name}.md": page(sheet) for name, sheet in sheets.items()}


def _order(one: griffe.Object) -> tuple[int, str]:
    return FIRST.index(one.name) if one.name in FIRST else len(FIRST), one.name.lower()


@cache
def load() -> griffe.Module:
    loader = griffe.GriffeLoader(search_paths=[str(ROOT / "src")])
    package = loader.load("perdure")
    loader.resolve_aliases(external=False)
    assert isinstance(package, griffe.Module)
    return package


def exports(module: griffe.Object) -> list[str]:
    return [str(name) for name in module.exports or []]


def final(found: griffe.Object | griffe.Alias) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found


def is_error(found: griffe.Object) -> bool:
    return isinstance(found, griffe.Class) and any(base.name == "PerdureError" for base in [found, *found.mro()])


def records(names: list[griffe.Object], shown: set[str]) -> list[griffe.Object]:
    """The records that the calls of these classes return, and the records in their fields."""
    found: dict[str, griffe.Object] = {}
    open_ = [call.returns for one in names for call in calls(one) if call.returns is not None]
    while open_:
        for name in _names(open_.pop()):
            record = _class(name)
            if record is not None and record.path not in shown | found.keys() and ".wire." in record.path:
                found[record.path] = record
                open_ += [one.annotation for one in fields(record) if one.annotation is not None]
    return list(found.values())


def _names(annotation: str | griffe.Expr) -> Iterator[griffe.ExprName]:
    if isinstance(annotation, griffe.Expr):
        yield from (part for part in annotation.iterate(flat=True) if isinstance(part, griffe.ExprName))


def _class(name: griffe.ExprName) -> griffe.Class | None:
    """The class of ours that a name stands for."""
    package, _, path = name.canonical_path.partition(".")
    if package != "perdure":
        return None
    try:
        found = final(load()[path])
    except (KeyError, griffe.AliasResolutionError):
        return None
    return found if isinstance(found, griffe.Class) else None


# --- a page --------------------------------------------------------------------------------------------------------


def page(sheet: Sheet) -> str:
    parts = [f"# {sheet.title}", sheet.summary]
    for one in sheet.names:
        parts += entry(one)
    return "\n\n".join(parts) + "\n"


def entry(one: griffe.Object) -> list[str]:
    """One public name: its signature, its docstring, its fields and its calls."""
    parts = [f"## {one.name}"]
    if isinstance(one, griffe.Function):
        return parts + call_parts(one, one.name)
    if one.name in MADE_BY_CODE and isinstance(made := one.members.get("__init__"), griffe.Function):
        parts.append(code(signature(made, one.name)))
    parts += [*text(one), *answer(one), *table("field", fields(one)), *values(one)]
    for call in calls(one):
        parts += [f"### {one.name}.{call.name}", *call_parts(call, call.name)]
    return parts


def call_parts(call: griffe.Function, name: str) -> list[str]:
    shapes = dict.fromkeys(signature(shape, name) for shape in call.overloads or [call])
    return [code("\n".join(shapes)), *text(call), *options(call)]


def code(lines: str) -> str:
    return f"```py\n{lines}\n```"


def table(head: str, members: list[griffe.Attribute]) -> list[str]:
    if not members:
        return []
    rows = [(f"`{one.name}`", _annotation(one), _line(one)) for one in members]
    columns = 3 if any(words for *_, words in rows) else 2
    lines = [(head, "type", "meaning"), ("---", "---", "---"), *rows]
    return ["\n".join(f"| {' | '.join(line[:columns])} |" for line in lines)]


def answer(one: griffe.Object) -> list[str]:
    """How the server answers an error."""
    code_, status = (one.members.get(name) for name in ("code", "status"))
    if not (is_error(one) and isinstance(code_, griffe.Attribute)):
        return []
    words = str(code_.value).strip("'\"")
    number = f", HTTP status {status.value}" if isinstance(status, griffe.Attribute) else ""
    parents = "".join(f", below `{base.name}`" for base in one.mro()[:1]) if isinstance(one, griffe.Class) else ""
    return [f"`error_type`: `{words}`{number}{parents}."]


def values(one: griffe.Object) -> list[str]:
    """The values of an enum."""
    if not isinstance(one, griffe.Class) or not any("Enum" in str(base) for base in one.bases):
        return []
    found = [final(member) for name, member in one.members.items() if not name.startswith("_")]
    lines = [
        f"- `{str(member.value).strip(chr(39))}`" + (f": {_line(member)}" if member.docstring else "")
        for member in found
        if isinstance(member, griffe.Attribute) and member.value is not None
    ]
    return ["\n".join(lines)] if lines else []


def calls(one: griffe.Object) -> list[griffe.Function]:
    """The methods that have a docstring; the others are for Perdure itself."""
    hidden = INTERNAL.get(one.name, set())
    found = [final(member) for name, member in one.members.items() if not name.startswith("_") and name not in hidden]
    return [member for member in found if isinstance(member, griffe.Function) and member.docstring]


def fields(one: griffe.Object) -> list[griffe.Attribute]:
    """All fields of a record; of other classes the attributes and properties that have a docstring."""
    if not isinstance(one, griffe.Class):
        return []
    is_record = "dataclass" in one.labels or any(RECORD_BASES.search(str(base)) for base in _bases(one))
    members = one.all_members if is_record or one.name in WITH_PROPERTIES else one.members
    found = [final(member) for name, member in members.items() if not name.startswith("_")]
    return [
        member
        for member in found
        if isinstance(member, griffe.Attribute)
        and _type(member)
        and member.name not in OF_DECLARATIONS
        and (is_record or member.annotation is None or _is_shown(one, member))
    ]


def _is_shown(one: griffe.Class, member: griffe.Attribute) -> bool:
    return "property" in member.labels if one.name in WITH_PROPERTIES else member.docstring is not None


def _bases(one: griffe.Class) -> Iterator[object]:
    for known in [one, *one.mro()]:
        yield from known.bases


def options(call: griffe.Function) -> list[str]:
    """The fields of a TypedDict behind `**options: Unpack[…]`."""
    for parameter in call.parameters:
        if parameter.kind is griffe.ParameterKind.var_keyword and "Unpack" in str(parameter.annotation):
            for name in _names(parameter.annotation or ""):
                if (found := _class(name)) is not None:
                    return table("option", fields(found))
    return []


# --- words ---------------------------------------------------------------------------------------------------------


def text(one: griffe.Object) -> list[str]:
    """A docstring as Markdown, its examples as blocks of Python."""
    if one.docstring is None:
        return []
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", _dedented(one.docstring)):
        if paragraph.startswith(("    ", ">>> ")):
            lines = textwrap.dedent(paragraph).splitlines()
            paragraph = code("\n".join(re.sub(r"\s*# doctest:.*", "", line) for line in lines))
        paragraphs.append(paragraph)
    return paragraphs


def _dedented(docstring: griffe.Docstring) -> str:
    """The docstring as it stands in its file, less the indentation of its quotes: an example keeps its own."""
    lines = (docstring.source or "").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    value: str = ast.literal_eval("\n".join([lines[0].strip(), *(line[margin:] for line in lines[1:])]))
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](../\1)", value.strip())


def _line(one: griffe.Object) -> str:
    return _cell(" ".join(one.docstring.value.split())) if one.docstring else ""


def _annotation(one: griffe.Attribute) -> str:
    return f"`{_cell(_type(one))}`"


def _type(one: griffe.Attribute) -> str:
    if one.annotation is not None:
        return _plain(one.annotation)
    read = DESCRIPTOR.fullmatch(str(one.value))
    return read[1] if read else ""


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def _plain(annotation: object) -> str:
    """An annotation as people read it: without msgspec's `Annotated` and quotes."""
    words = str(annotation)
    words = re.sub(r"\b(?:Int64|Uuid|Time|Double|MaybeRaw)\b", lambda found: PLAIN_TYPES[found[0]], words)
    words = re.sub(r"Annotated\[((?:[^][,]|\[[^]]*\])+),(?:[^][]|\[[^]]*\])*\]", r"\1", words)
    return words.replace("'", '"') if "Literal" in words else words.replace("'", "").replace('"', "")


def signature(call: griffe.Function, name: str) -> str:
    """A call as Python writes it, on one line if it fits."""
    parameters = [one for one in call.parameters if one.name not in ("self", "cls")]
    shown = []
    is_bare = True
    for one in parameters:
        if one.kind is griffe.ParameterKind.keyword_only and is_bare:
            shown.append("*")
        is_bare = is_bare and one.kind not in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        shown.append(_parameter(one))
    if any(one.kind is griffe.ParameterKind.positional_only for one in parameters):
        last = max(n for n, one in enumerate(parameters) if one.kind is griffe.ParameterKind.positional_only)
        shown.insert(last + 1, "/")
    returns = "" if call.returns is None or call.name == "__init__" else f" -> {_plain(call.returns)}"
    awaited = re.fullmatch(r" -> Coroutine\[\w+, \w+, (.*)\]", returns)
    returns = f" -> {awaited[1]}" if awaited else returns
    prefix = "async def " if "async" in call.labels or awaited else "def "
    prefix = "class " if call.name == "__init__" else prefix
    line = f"{prefix}{name}({', '.join(shown)}){returns}"
    if len(line) > LINE_MAX:
        line = f"{prefix}{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){returns}"
    return line


def _parameter(one: griffe.Parameter) -> str:
    is_rest = one.kind in (griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword)
    stars = ("**" if one.kind is griffe.ParameterKind.var_keyword else "*") if is_rest else ""
    words = f"{stars}{one.name}"
    if one.annotation is not None:
        words += f": {_plain(one.annotation)}"
    if one.default is not None and not is_rest:
        default = str(one.default).replace("'", '"')
        words += f" = {default}" if one.annotation is not None else f"={default}"
    return words
