"""Finds workflow code that replays differently: clocks, random numbers, input/output, threads, and sets.

A call counts only if its name resolves to the very function, in the workflow or in called plain functions of the same
package. Steps and functions passed as arguments are not read. A comment `# perdure: ok` accepts a line.
"""

import ast
import builtins
import contextlib
import datetime
import inspect
import linecache
import logging
import sys
from collections import ChainMap, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple, TypeGuard

from perdure.sdk.workflows.workflow import Workflow

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


class Finding(NamedTuple):
    file: str
    line: int
    text: str


def find_in_code(fn: Callable[..., Any], *, sets: bool = False) -> list[Finding]:
    """`sets` also finds tasks and calls made in the order of a set. Never raises."""
    search = _Search(sets)
    with contextlib.suppress(Exception):  # odd code must not keep a worker from its work
        if isinstance(fn, FunctionType) and (sets or search.suspects(fn)):
            search.look(fn)
    return sorted(search.found)


def warn_of_code(workflows: Iterable[Workflow[Any, Any]]) -> None:
    found = dict.fromkeys(finding for one in workflows for finding in find_in_code(one.fn))
    for file, line, text in found:
        logger.warning("%s:%d: %s.", file, line, text)


def _names(code: CodeType) -> set[str]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*inner)


def _outer(fn: FunctionType) -> Mapping[str, Any]:
    cells: dict[str, Any] = dict.fromkeys(fn.__code__.co_freevars)
    for name, cell in zip(cells, fn.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            cells[name] = cell.cell_contents
    return ChainMap(cells, fn.__globals__, vars(builtins))


def _is_helper(value: object, caller: FunctionType) -> TypeGuard[FunctionType]:
    if not isinstance(value, FunctionType) or "_perdure_step" in vars(value):
        return False
    theirs, ours = (str(one.__globals__.get("__package__") or "").partition(".")[0] for one in (value, caller))
    return value.__globals__ is caller.__globals__ or (theirs == ours and ours not in ("", "perdure"))


class _Search:
    def __init__(self, sets: bool) -> None:
        self.sets = sets
        self.found: set[Finding] = set()
        self._seen: set[CodeType] = set()
        self._remedies: dict[Any, str] = {getattr(datetime.datetime, word): "use ctx.now()" for word in _CLOCKS}
        self._remedies[datetime.date.today] = "use ctx.now().date()"
        for name, (remedy, words) in _CALLS.items():
            members = vars(sys.modules[name]) if name in sys.modules else {}
            self._remedies.update((members[word], remedy) for word in words.split() if word in members)

    def remedy(self, value: object) -> str | None:
        return self._remedies.get(value) if callable(value) and isinstance(value, Hashable) else None

    def suspects(self, fn: FunctionType) -> bool:
        """A quick look at the names in the code, which spares reading most files."""
        reached = {fn: None}
        waiting = [fn]
        for one in waiting:
            outer = _outer(one)
            for word in _names(one.__code__):
                value = outer.get(word)
                if word in _WORDS or self.remedy(value):
                    return True
                if _is_helper(value, one) and value not in reached:
                    reached[value] = None
                    waiting.append(value)
        return False

    def look(self, fn: FunctionType) -> None:
        code = fn.__code__
        if code in self._seen or code.co_name == "<lambda>":
            return
        self._seen.add(code)
        linecache.checkcache(code.co_filename)
        lines = inspect.getblock(linecache.getlines(code.co_filename, fn.__globals__)[code.co_firstlineno - 1 :])
        (block,) = ast.parse("".join(["if 1:\n", *(f" {line}" for line in lines)])).body
        node = block.body[0]  # type: ignore[attr-defined]  # an `if` has it
        if isinstance(node, _DEFS) and node.name == code.co_name:
            _Body(self, fn, node, lines).look(node.body)


class _Body:
    """One function's code, with the called functions defined inside."""

    def __init__(self, search: _Search, fn: FunctionType, node: ast.AST, lines: list[str]) -> None:
        self._search, self._fn, self._lines = search, fn, lines
        self._outer = _outer(fn)
        self._local: dict[str, list[Any]] = defaultdict(list)
        """The nodes that bind each local name; for an import, the imported object."""
        self._entered: list[ast.AST] = []
        values: dict[ast.AST, ast.AST] = {}
        for one in list(ast.walk(node))[1:]:
            match one:
                case ast.Assign(targets=[ast.Name() as target], value=value):
                    values[target] = value
                case ast.AnnAssign(target=ast.Name() as target):
                    values[target] = one
                case ast.Name(id=name, ctx=ast.Store()):
                    self._local[name].append(values.get(one, one))
                case ast.Import(names=names):
                    for it in names:
                        top = it.name.partition(".")[0]
                        self._local[it.asname or top].append(sys.modules.get(it.name if it.asname else top))
                case ast.ImportFrom(names=names, module=module, level=level):
                    for it in names:
                        given = None if level else getattr(sys.modules.get(module or ""), it.name, None)
                        self._local[it.asname or it.name].append(given)
                case ast.arg(arg=name) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                    self._local[name].append(one)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    self._local[name].append(one)

    def look(self, nodes: Iterable[ast.AST]) -> None:
        for node in _walk(nodes):
            if self._search.sets and any(map(self._is_durable, _walk(self._made_of_set(node)))):
                text = (
                    "calls or tasks are made in the order of a set, which differs in a replay; use a list, as sorted(…)"
                )
                self._add(node, text)
            if not isinstance(node, ast.Call):
                continue
            value = self._value(node.func)
            if _is_helper(value, self._fn):
                self._search.look(value)
            elif remedy := self._search.remedy(value):
                self._add(node, f"{ast.unparse(node.func)}() in workflow code differs in a replay; {remedy}")
            elif isinstance(value, _DEFS) and not value.decorator_list and value not in self._entered:
                self._entered.append(value)
                self.look(value.body)

    def _add(self, node: Any, text: str) -> None:
        if ACCEPTED not in self._lines[node.lineno - 2]:
            line = self._fn.__code__.co_firstlineno + node.lineno - 2
            self._search.found.add(Finding(self._fn.__code__.co_filename, line, text))

    def _value(self, node: ast.AST) -> Any:
        """The object named by an expression, the node if defined in this code, or None."""
        match node:
            case ast.Name(id=name) if name not in self._local:
                return self._outer.get(name)
            case ast.Name(id=name) if len(self._local[name]) == 1:
                return self._local[name][0]
            case ast.Attribute(value=inner, attr=attr):
                base = self._value(inner)
                if isinstance(base, ModuleType):
                    return vars(base).get(attr)
                if base is datetime.datetime or base is datetime.date:
                    return getattr(base, attr, None)
        return None

    def _made_of_set(self, node: ast.AST) -> list[Any]:
        """The code running in the order of a set."""
        match node:
            case ast.For(iter=over, body=made) if self._is_set(over):
                return made
            case (
                ast.ListComp(elt=made, generators=loops)
                | ast.GeneratorExp(elt=made, generators=loops)
                | ast.SetComp(elt=made, generators=loops)
                | ast.DictComp(value=made, generators=loops)
            ) if any(self._is_set(one.iter) for one in loops):
                return [made]
            case ast.Starred(value=ast.Set(elts=made) as over) if self._is_set(over):
                return made
            case ast.Call(func=called, args=[made, *over]) if self._value(called) is map:
                return [ast.Call(made, [], [])] if any(map(self._is_set, over)) else []
        return []

    def _is_durable(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        value = self._value(node.func)
        if isinstance(value, _DEFS):
            decorators = "".join(map(ast.unparse, value.decorator_list))
            return isinstance(value, ast.AsyncFunctionDef) or "step" in decorators
        return (
            (isinstance(node.func, ast.Attribute) and node.func.attr in _TASKS)
            or inspect.iscoroutinefunction(value)
            or hasattr(value, "_perdure_step")
            or isinstance(value, Workflow)
        )

    def _is_set(self, node: ast.AST) -> bool:
        match node:
            case ast.SetComp():
                return True
            case ast.Set():
                return len(node.elts) > 1
            case ast.Call(func=ast.Name(id=word)) if word not in self._local:
                return word in ("set", "frozenset") or (word in _IN_ORDER and any(map(self._is_set, node.args)))
            case ast.Call(func=ast.Attribute(attr=word, value=inner)):
                return word in _SET_METHODS and self._is_set(inner)
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub()):
                return self._is_set(node.left)
            case ast.AnnAssign(annotation=hint) | ast.arg(annotation=ast.AST() as hint):
                return ast.unparse(hint).strip("'").partition("[")[0].rpartition(".")[2] in _SETS
            case ast.Name(id=word, ctx=ast.Load()) if word in self._local:
                given, self._local[word] = self._local[word], []  # it may be made of itself
                is_set = all(map(self._is_set, given))
                self._local[word] = given
                return is_set
            case ast.Name(id=word, ctx=ast.Load()):
                return isinstance(self._outer.get(word), set | frozenset)
        return False


def _walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (*_DEFS, ast.Lambda, ast.ClassDef)):
            yield node
            waiting.extend(ast.iter_child_nodes(node))
