"""Prints how large and how plain src/perdure is: `make house`. Each figure has a bar that it shall come down to.

`tests/test_house.py` holds the figures: a change may not make one worse.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Final, NamedTuple

from scripts import prose

RECORD_BASES: Final = {"Struct", "NamedTuple", "TypedDict"}
COPIED_MIN: Final = 5
FOLDER_MAX: Final = 25
"""Modules in one folder, without its `__init__`."""
SMALL: Final = 50
"""A module with fewer lines may belong to a neighbour."""
TESTS: Final = prose.ROOT / "tests"
POSITIONAL_MIN: Final = 6
ROOMS_WITH_ROWS: Final = ("perdure.store", "perdure.engine")
QUERIES: Final = {"query", "execute", "fetch"}
ROW: Final = r"(?:Row|Sequence\[Any\]|tuple\[(?:Any|object), \.\.\.\])"
ROWS: Final = rf"(?:Rows|(?:list|Sequence|Iterable)\[{ROW}\])"
FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
PRONOUN: Final = re.compile(r"\b(?:none|(?i:its?|they|them|their|this|that|these|those|ones?|others))\b")
"""The list is simple: "this" and "that" count before a noun, too. `None` is a value."""
PREPOSITION: Final = re.compile(
    r"[(*]*(?i:after|also|among|as|at|before|beside|between|by|during|except|for|from|in|into|like|of|on|over|per|since"
    r"|so|through|to|under|until|up|with|within|without)\b"
)


class House:
    """The modules of src by name, and what is measured of them."""

    def __init__(self, sources: Mapping[str, str], helpers: Mapping[str, str] | None = None) -> None:
        self.sources = sources
        self.helpers = helpers or {}
        """Modules of tests that hold no tests."""
        self.trees = {name: ast.parse(source) for name, source in sources.items()}
        self.nodes = [node for tree in self.trees.values() for node in ast.walk(tree)]

    @cached_property
    def records(self) -> list[str]:
        """Structs, NamedTuples, TypedDicts, dataclasses, and classes that inherit from one of these. Operations do not
        count: each stands in place of a route."""
        classes = [node for node in self.nodes if isinstance(node, ast.ClassDef)]
        known: set[str] = set()
        while found := {one.name for one in classes if one.name not in known and _is_record(one, known)}:
            known |= found
        return [one.name for one in classes if one.name in known and "Operation" not in map(_name, one.bases)]

    def folders(self) -> Counter[str]:
        """The modules of each folder that has more than half as many as one may have."""
        packages = {name.rpartition(".")[0] for name in self.sources}
        counts = Counter(name.rpartition(".")[0] for name in self.sources if name not in packages)
        return Counter({name: count for name, count in counts.items() if 2 * count > FOLDER_MAX})

    def names_used_twice(self) -> Counter[str]:
        """Names of several classes."""
        names = Counter(node.name for node in self.nodes if isinstance(node, ast.ClassDef))
        return Counter({name: count for name, count in names.items() if count > 1 and not name.startswith("_")})

    def small_modules(self) -> Counter[str]:
        packages = {name.rpartition(".")[0] for name in self.sources}
        sizes = {name: len(source.splitlines()) for name, source in self.sources.items() if name not in packages}
        return Counter({name: size for name, size in sizes.items() if size < SMALL})

    def passed_on(self) -> int:
        """Keywords that hand on an attribute under its own name: `limit=op.limit`."""
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        return sum(
            isinstance(keyword.value, ast.Attribute) and keyword.value.attr == keyword.arg
            for call in calls
            for keyword in call.keywords
        )

    def helper_lines(self) -> int:
        return sum(len(source.splitlines()) for source in self.helpers.values())

    def copies(self) -> int:
        """Calls of a record type with at least five arguments that read an attribute of the same object.

        A conversion on the way does not change that: `Shown(id=row.id, at=rfc3339(row.at_us), …)` is a copy.
        """
        calls = [node for node in self.nodes if isinstance(node, ast.Call) and _name(node.func) in self.records]
        return sum(_most_read(call) >= COPIED_MIN for call in calls)

    def column_reads(self) -> int:
        """Columns of a query's row that are read by number: `row[3]`, `rows[0][17]`, `rows[0][:5]`.

        Rows are the answers of queries and the arguments that are annotated like them.
        """
        trees = [tree for name, tree in self.trees.items() if name.startswith(ROOMS_WITH_ROWS)]
        functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, FUNCTION)]
        inner = {id(node) for one in functions for node in ast.walk(one) if isinstance(node, FUNCTION) and node != one}
        helpers = {one.name: depth for one in functions if (depth := _annotated(one.returns))}
        return sum(_Rows(helpers).reads(one) for one in functions if id(one) not in inner)

    def positional_calls(self) -> int:
        return sum(isinstance(node, ast.Call) and len(node.args) >= POSITIONAL_MIN for node in self.nodes)

    def knot(self, wing: str) -> int:
        """The modules of the wing's largest import knot: each of them imports all others, directly or not.

        Imports for types and imports inside functions count.
        """
        modules = {name for name in self.trees if name.startswith(f"{wing}.")}
        imports = {name: modules & set(_imported(self.trees[name])) for name in modules}
        reached = {name: _reached(name, imports) for name in modules}
        return max((sum(name in reached[other] for other in reached[name]) for name in modules), default=0)

    def lines(self) -> int:
        return sum(len(source.splitlines()) for source in self.sources.values())

    @cached_property
    def report(self) -> prose.Report:
        return prose.together(map(prose.report, self.sources.values()))

    def words(self) -> int:
        """Words of docstrings and comments. A piece of code is one word; examples do not count."""
        return self.report.words["docstring"] + self.report.words["comment"]

    @cached_property
    def docstrings(self) -> list[list[str]]:
        """The sentences of each docstring, without code and examples."""
        texts = (text for source in self.sources.values() for text in prose.texts(source) if text.kind == "docstring")
        return [[sentence.bare for sentence in prose.sentences(text)] for text in texts]

    def pronouns(self) -> float:
        sentences = [sentence for docstring in self.docstrings for sentence in docstring]
        words = sum(len(sentence.split()) for sentence in sentences)
        return round(1_000 * sum(len(PRONOUN.findall(sentence)) for sentence in sentences) / max(words, 1), 1)

    def prepositions(self) -> int:
        return sum(bool(docstring and PREPOSITION.match(docstring[0])) for docstring in self.docstrings)

    def rate(self, rule: str) -> float:
        return round(self.report.rate(rule), 2)


class Figure(NamedTuple):
    name: str
    bar: float
    measure: Callable[[House], float]
    places: Callable[[House], Counter[str]] | None = None
    """Where the most of it is."""


FIGURES: Final = (
    Figure("modules in one folder", FOLDER_MAX, lambda house: max(house.folders().values(), default=0), House.folders),
    Figure("modules under 50 lines", 20, lambda house: len(house.small_modules()), House.small_modules),
    Figure("class names used twice", 10, lambda house: len(house.names_used_twice()), House.names_used_twice),
    Figure("keywords like limit=op.limit", 400, House.passed_on),
    Figure("record types", 500, lambda house: len(house.records)),
    Figure("field-by-field copies", 10, House.copies),
    Figure("columns of rows read by number", 10, House.column_reads),
    Figure("calls with 6 or more positional arguments", 10, House.positional_calls),
    Figure("modules in the import knot of engine", 6, lambda house: house.knot("perdure.engine")),
    Figure("modules in the import knot of sdk", 6, lambda house: house.knot("perdure.sdk")),
    Figure("lines of Python", 72_800, House.lines),
    Figure("lines of helpers of tests", 10_000, House.helper_lines),
    Figure("words of docstrings and comments", 42_000, House.words),
    Figure("words of them per 1,000 lines", 884, lambda house: 1_000 * house.words() // house.lines()),
    Figure("pronouns per 1,000 words of docstrings", 45, House.pronouns),
    Figure("docstrings that begin with a preposition", 0, House.prepositions),
    Figure("whoever, somebody … per 1,000 words", 0.3, lambda house: house.rate("vague")),
    Figure("What, Who, Those clauses per 1,000 words", 0.3, lambda house: house.rate("clause")),
    Figure("is no, is none … per 1,000 words", 0.3, lambda house: house.rate("is no")),
    Figure("sentences above 35 words", 0, lambda house: house.report.count("long")),
)


def house() -> House:
    """The house as it stands."""
    names = {".".join(path.relative_to(prose.SOURCE.parent).with_suffix("").parts): path for path in prose.modules()}
    helpers = {str(path): path for path in TESTS.rglob("*.py") if "test_" not in path.name}
    return House(
        {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for name, path in names.items()},
        {name: path.read_text(encoding="utf-8") for name, path in helpers.items()},
    )


def _name(node: ast.AST) -> str:
    """The last name of `a.b`, `b[int]` or `b(…)`: b."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=inner) | ast.Call(func=inner):
            return _name(inner)
    return ""


def _is_record(one: ast.ClassDef, known: set[str]) -> bool:
    bases = {_name(base) for base in one.bases}
    return bool(bases & (RECORD_BASES | known)) or "dataclass" in map(_name, one.decorator_list)


def _most_read(call: ast.Call) -> int:
    """How many arguments of the call read an attribute of the same object."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    read = Counter(name for argument in arguments for name in set(_objects(argument)))
    return max(read.values(), default=0)


def _objects(argument: ast.expr) -> Iterator[str]:
    for node in ast.walk(argument):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            yield ast.unparse(node.value)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _reached(start: str, imports: dict[str, set[str]]) -> set[str]:
    found, left = {start}, [start]
    while left:
        new = imports[left.pop()] - found
        found |= new
        left += new
    return found


def _annotated(annotation: ast.expr | None) -> int:
    """2 for rows, 1 for a row, 0 for another type."""
    text = "" if annotation is None else ast.unparse(annotation).removesuffix(" | None")
    return 2 if re.fullmatch(ROWS, text) else 1 if re.fullmatch(ROW, text) else 0


class _Rows:
    """Follows rows through a function by name. A depth is 2 for rows, 1 for a row, 0 for all else."""

    def __init__(self, helpers: Mapping[str, int]) -> None:
        self.helpers = helpers
        self.names: dict[str, int] = {}

    def reads(self, function: ast.AST) -> int:
        nodes = list(ast.walk(function))
        for _ in range(3):  # the walk may meet `first = rows[0]` before it has met `rows = await query(…)`
            for node in nodes:
                self._bind(node)
        return sum(isinstance(node, ast.Subscript) and self._is_column(node) for node in nodes)

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.arg(arg=name) if depth := _annotated(node.annotation):
                self.names[name] = depth
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ) if depth := self._depth(value):
                self.names[name] = depth
            case (
                ast.For(target=ast.Name(id=name), iter=rows) | ast.comprehension(target=ast.Name(id=name), iter=rows)
            ) if self._depth(rows) == 2:
                self.names[name] = 1

    def _depth(self, node: ast.expr) -> int:
        match node:
            case ast.Name(id=name):
                return self.names.get(name, 0)
            case ast.Await(value=inner) | ast.Call(func=ast.Name(id="list" | "sorted" | "reversed"), args=[inner]):
                return self._depth(inner)
            case ast.IfExp(body=one, orelse=other):
                return max(self._depth(one), self._depth(other))
            case ast.Subscript(value=inner, slice=ast.Slice()):
                return self._depth(inner)
            case ast.Subscript(value=inner):
                return max(self._depth(inner) - 1, 0)
            case ast.Call(func=function):
                return 2 if _name(function) in QUERIES else self.helpers.get(_name(function), 0)
        return 0

    def _is_column(self, node: ast.Subscript) -> bool:
        bounds = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
        numbers = [ast.unparse(bound).lstrip("-").isdigit() for bound in bounds if bound]
        return self._depth(node.value) == 1 and bool(numbers) and all(numbers)


def main() -> None:
    measured = house()
    print(f"{'figure':44}{'today':>8}{'bar':>8}")
    for figure in FIGURES:
        today = figure.measure(measured)
        print(f"{figure.name:44}{today:>8,}{figure.bar:>8,}{'' if today > figure.bar else '  reached'}")
    tests = House({str(path): path.read_text(encoding="utf-8") for path in prose.modules([TESTS])})
    print(f"docstrings of tests: {tests.pronouns()} pronouns, {tests.prepositions()} begin with a preposition")
    for figure in FIGURES:
        if figure.places is not None and (places := figure.places(measured)):
            print(f"\n{figure.name}: {', '.join(f'{name} {count}' for name, count in places.most_common(12))}")
    if crowded := [name for name, count in measured.folders().items() if count > FOLDER_MAX]:
        raise SystemExit(f"More than {FOLDER_MAX} modules: {', '.join(crowded)}. Divide a folder by subject.")


if __name__ == "__main__":
    main()
