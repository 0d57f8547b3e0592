"""Finds what a replay does differently in workflow code: clocks, random numbers, input/output, threads, and sets.

Only calls count whose names resolve to the very functions, in the workflow or in plain functions of its package that it
calls. Steps and functions that are only passed on are not looked at. A comment `# perdure: ok` in the line accepts it.
"""

import ast
import builtins
import datetime
import functools
import inspect
import linecache
import logging
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple, TypeGuard

from perdure.sdk.workflow import Workflow

logger = logging.getLogger("perdure.worker")

ACCEPTED: Final = "perdure: ok"
_STEP: Final = "do it in a step"
_CALLS: Final = {
    "time": ("use ctx.now()", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns"),
    "uuid": ("use ctx.uuid()", "uuid1 uuid4"),
    "random": (
        "use ctx.random",
        "choice choices expovariate gauss getrandbits normalvariate randbytes randint random randrange sample shuffle "
        "triangular uniform",
    ),
    "secrets": (_STEP, "choice randbelow randbits token_bytes token_hex token_urlsafe"),
    "os": (_STEP, "urandom getrandom system popen"),
    "builtins": (_STEP, "open input"),
    "threading": (_STEP, "Thread Timer"),
    "multiprocessing": (_STEP, "Process Pool"),
    "subprocess": (_STEP, "Popen call check_call check_output getoutput run"),
}
_CLOCKS: Final = ("now", "utcnow", "today")
_WORDS: Final = frozenset([*_CLOCKS, *(word for _, words in _CALLS.values() for word in words.split())])
_TASKS: Final = frozenset({"create_task", "ensure_future", "start_soon", "run_child", "start_child", "step"})
_SETS: Final = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
_SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})
_IN_ORDER: Final = frozenset({"list", "tuple", "enumerate", "iter"})
_DEFS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_APART: Final = (*_DEFS, ast.Lambda, ast.ClassDef)
_UNKNOWN: Final = object()


class Finding(NamedTuple):
    file: str
    line: int
    text: str


def find_in_code(fn: Callable[..., Any], *, sets: bool = False) -> list[Finding]:
    """`sets` also finds tasks and calls that are made in the order of a set. Never raises."""
    try:
        reached: dict[FunctionType, None] = {}
        targets = _targets()
        if isinstance(fn, FunctionType) and (_reach(fn, reached, targets) or sets):
            look = _Look(targets, sets)
            look.function(fn)
            return sorted(look.found)
    except Exception:  # odd code must not keep a worker from its work
        pass
    return []


def warn_of_code(workflows: Iterable[Workflow[Any, Any]]) -> None:
    found = dict.fromkeys(finding for one in workflows for finding in find_in_code(one.fn))
    for file, line, text in found:
        logger.warning("%s:%d: %s.", file, line, text)


def _targets() -> dict[Any, str]:
    found = {getattr(datetime.datetime, word): "use ctx.now()" for word in _CLOCKS}
    found[datetime.date.today] = "use ctx.now().date()"
    for name, (remedy, words) in _CALLS.items():
        members = vars(sys.modules[name]) if name in sys.modules else {}
        found.update((members[word], remedy) for word in words.split() if word in members)
    return found


def _reach(fn: FunctionType, reached: dict[FunctionType, None], targets: Mapping[Any, str]) -> bool:
    """Whether the code names a target. A quick look, so that most files need not be read."""
    reached[fn] = None
    outer, suspect = _outer(fn), False
    for word in _names(fn.__code__):
        value = outer.get(word)
        suspect = suspect or word in _WORDS or (callable(value) and _is_in(value, targets))
        if _is_helper(value, fn) and value not in reached:
            suspect = _reach(value, reached, targets) or suspect
    return suspect


def _names(code: CodeType) -> set[str]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*inner)


def _outer(fn: FunctionType) -> Mapping[str, Any]:
    cells: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            cells[name] = _UNKNOWN
    return ChainMap(cells, fn.__globals__, vars(builtins))


def _is_helper(value: object, caller: FunctionType) -> TypeGuard[FunctionType]:
    if not isinstance(value, FunctionType) or "_perdure_step" in vars(value):
        return False
    theirs, ours = value.__globals__, caller.__globals__
    package = str(ours.get("__package__") or "").partition(".")[0]
    if theirs is ours or package in ("", "perdure"):
        return theirs is ours
    return package == str(theirs.get("__package__")).partition(".")[0]


def _is_in(value: object, targets: Mapping[Any, str]) -> bool:
    try:
        return value in targets
    except TypeError:  # not hashable
        return False


@functools.lru_cache(maxsize=1)
def _parse(file: str, text: str) -> dict[tuple[str, int], ast.AST]:
    """The functions of a file by name and first line."""
    found: dict[tuple[str, int], ast.AST] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _DEFS):
            found[node.name, min([node.lineno, *(one.lineno for one in node.decorator_list)])] = node
    return found


class _Look:
    def __init__(self, targets: Mapping[Any, str], sets: bool) -> None:
        self.found: set[Finding] = set()
        self._targets = targets
        self._looks_for_sets = sets
        self._seen: set[CodeType] = set()

    def function(self, fn: FunctionType) -> None:
        code = fn.__code__
        if code in self._seen:
            return
        self._seen.add(code)
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename, fn.__globals__)
        node = _parse(code.co_filename, "".join(lines)).get((code.co_name, code.co_firstlineno))
        if isinstance(node, _DEFS):
            _Body(self, fn, node, lines).look(node.body)

    def add(self, file: str, lines: list[str], node: Any, text: str) -> None:
        if ACCEPTED not in lines[node.lineno - 1]:
            self.found.add(Finding(file, node.lineno, text))


class _Body:
    """The code of one function, with the functions in it that it calls."""

    def __init__(self, all: _Look, fn: FunctionType, node: ast.AST, lines: list[str]) -> None:
        self._all, self._fn, self._lines = all, fn, lines
        self._outer = _outer(fn)
        self._defs: dict[str, Any] = {}
        self._bound: dict[str, int] = {}
        """How often each local name is assigned."""
        self._imported: dict[str, Any] = {}
        self._set_names: dict[str, int] = {}
        inner = list(ast.walk(node))[1:]
        for one in inner:
            if isinstance(one, _APART[:2]):
                self._defs[one.name] = one
                self._bind(one.name)
            elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                self._bind(one.id)
            elif isinstance(one, ast.arg):
                self._bind(one.arg)
            elif isinstance(one, ast.ExceptHandler | ast.MatchAs) and one.name:
                self._bind(one.name)
            elif isinstance(one, ast.Import | ast.ImportFrom):
                self._import(one)
        for one in sorted((one for one in inner if isinstance(one, ast.stmt)), key=lambda one: one.lineno):
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and self._is_set(one.value):
                self._note_set(one.targets[0].id)
            elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and _says_set(one.annotation):
                self._note_set(one.target.id)
        for one in inner:
            if isinstance(one, ast.arg) and _says_set(one.annotation):
                self._note_set(one.arg)

    def _bind(self, name: str) -> None:
        self._bound[name] = self._bound.get(name, 0) + 1

    def _note_set(self, name: str) -> None:
        self._set_names[name] = self._set_names.get(name, 0) + 1

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for one in node.names:
            name = one.asname or one.name.partition(".")[0]
            self._bind(name)
            if isinstance(node, ast.Import):
                self._imported[name] = sys.modules.get(one.name if one.asname else name)
            elif node.level == 0:
                self._imported[name] = getattr(sys.modules.get(node.module or ""), one.name, None)

    def look(self, nodes: Iterable[ast.AST]) -> None:
        for node in _walk(nodes):
            if self._all._looks_for_sets:
                self._look_for_sets(node)
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in self._defs:
                inner = self._defs[node.func.id]
                if self._bound[node.func.id] == 1 and not inner.decorator_list:
                    self._defs.pop(node.func.id)
                    self.look(inner.body)
                    self._defs[node.func.id] = inner
                continue
            value = self._value(node.func)
            if _is_helper(value, self._fn):
                self._all.function(value)
            elif callable(value) and _is_in(value, self._all._targets):
                called, remedy = ast.unparse(node.func), self._all._targets[value]
                self._add(node, f"{called}() in workflow code differs in a replay; {remedy}")

    def _add(self, node: ast.AST, text: str) -> None:
        self._all.add(self._fn.__code__.co_filename, self._lines, node, text)

    def _value(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name):
            if node.id not in self._bound:
                return self._outer.get(node.id, _UNKNOWN)
            return self._imported.get(node.id, _UNKNOWN) if self._bound[node.id] == 1 else _UNKNOWN
        if isinstance(node, ast.Attribute):
            base = self._value(node.value)
            if isinstance(base, ModuleType):
                return vars(base).get(node.attr, _UNKNOWN)
            if base is datetime.datetime or base is datetime.date:
                return getattr(base, node.attr, _UNKNOWN)
        return _UNKNOWN

    def _look_for_sets(self, node: ast.AST) -> None:
        made: list[ast.AST] = []
        if isinstance(node, ast.For) and self._is_set(node.iter):
            made = node.body  # type: ignore[assignment]  # statements are nodes
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            made = [node.elt] if any(self._is_set(one.iter) for one in node.generators) else []
        elif isinstance(node, ast.DictComp):
            made = [node.value] if any(self._is_set(one.iter) for one in node.generators) else []
        elif isinstance(node, ast.Starred) and isinstance(node.value, ast.Set) and self._is_set(node.value):
            made = list(node.value.elts)
        elif isinstance(node, ast.Call) and self._value(node.func) is map and any(map(self._is_set, node.args[1:])):
            made = [ast.Call(node.args[0], [], [])]
        if any(map(self._is_durable, _walk(made))):
            self._add(
                node,
                "calls or tasks are made in the order of a set, which differs in a replay; use a list, as sorted(…)",
            )

    def _is_durable(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute) and node.func.attr in _TASKS:
            return True
        if isinstance(node.func, ast.Name) and node.func.id in self._defs:
            inner = self._defs[node.func.id]
            return isinstance(inner, ast.AsyncFunctionDef) or any(
                "step" in ast.unparse(d) for d in inner.decorator_list
            )
        value = self._value(node.func)
        return (
            inspect.iscoroutinefunction(value)
            or hasattr(value, "_perdure_step")
            or hasattr(value, "run_timeout_seconds")
        )

    def _is_set(self, node: ast.AST) -> bool:
        match node:
            case ast.SetComp():
                return True
            case ast.Set():
                return len(node.elts) > 1
            case ast.Call(func=ast.Name(id=word)) if word not in self._bound:
                return word in ("set", "frozenset") or (word in _IN_ORDER and any(map(self._is_set, node.args)))
            case ast.Call(func=ast.Attribute(attr=word, value=inner)):
                return word in _SET_METHODS and self._is_set(inner)
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub()):
                return self._is_set(node.left)
            case ast.Name(id=word) if word in self._bound:
                return self._set_names.get(word) == self._bound[word]
            case ast.Name():
                return isinstance(self._outer.get(node.id), set | frozenset)
        return False


def _walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, _APART):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _says_set(annotation: ast.AST | None) -> bool:
    if annotation is None:
        return False
    said = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return isinstance(said, str) and said.partition("[")[0].rpartition(".")[2] in _SETS
