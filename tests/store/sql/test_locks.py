"""A verb declares the rows in its arguments, or to be a sweep or a look."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import pytest
from tests.store.declared import declarations

from perdure.store.base.interface import verb
from perdure.store.base.locks import Row, SharedRow
from perdure.store.base.statements import load
from perdure.store.verbs.base.idempotency import At, Idempotency


class Wait(NamedTuple):
    key: str
    topic: str | None = None


async def _plain(*, id: str, wait: Wait | None = None, waits: Sequence[Wait] = (), size: str = "small") -> None: ...


async def _once(*, id: str, idempotency: Idempotency | None = None) -> None: ...


WAITS = [Wait("a"), Wait("b"), Wait("a")]


@pytest.mark.parametrize(
    ("locks", "arguments", "rows"),
    [
        ("", {}, []),
        ("execution=id", {}, [("execution", "x")]),
        ("execution=size", {}, [("execution", "small")]),
        ("topic=wait.topic", {"wait": Wait("k", "t")}, [("topic", "t")]),
        ("topic=wait.topic", {"wait": Wait("k")}, []),
        ("topic=wait.topic", {"wait": None}, []),
        ("topic=wait.topic", {}, []),
        ("key=id,wait.key", {"wait": Wait("k")}, [("key", ("x", "k"))]),
        ("key=id,wait.topic", {"wait": Wait("k")}, []),
        ("wait=waits[].key", {"waits": WAITS}, [("wait", "a"), ("wait", "b")]),
        ("meta='epoch'", {}, [("meta", "epoch")]),
        ("meta=''", {}, [("meta", "")]),
        ("execution=id wait=waits[].key execution=id", {"waits": WAITS[:1]}, [("execution", "x"), ("wait", "a")]),
        (lambda arguments: [("key", arguments["id"])] * 2, {}, [("key", "x")]),
    ],
)
def test_arguments_name_rows(
    locks: str | Callable[[dict[str, Any]], list[Row]], arguments: dict[str, Any], rows: list[Row]
) -> None:
    assert list(verb(locks=locks)(_plain)(id="x", **arguments).locks()) == rows


def test_a_row_that_a_verb_shares_and_wants_alone_is_wanted_alone() -> None:
    alone, shared = ("topic", "t"), SharedRow(("topic", "t"))
    for rows in ([shared, alone], [alone, shared], [shared, alone, shared]):
        [row] = verb(locks=lambda arguments, rows=rows: rows)(_plain)(id="x").locks()  # type: ignore[misc]
        assert type(row) is tuple
    [row] = verb(locks=lambda arguments: [shared, shared])(_plain)(id="x").locks()
    assert type(row) is SharedRow


@pytest.mark.parametrize("locks", ["execution=id", lambda arguments: [("execution", arguments["id"])]])
def test_an_idempotency_key_names_its_row(locks: str | Callable[[dict[str, Any]], list[Row]]) -> None:
    once = verb(locks=locks)(_once)
    assert list(once(id="x").locks()) == [("execution", "x")]
    same = Idempotency("route", "i", "hash")
    assert list(once(id="x", idempotency=same).locks()) == [("idempotency", "i"), ("execution", "x")]


@pytest.mark.parametrize(
    "locks",
    ["execution", "execution=", "execution=other", "execution=other.id", "key=id,", "x=ids[]", "x=id[]", "x='a"],
)
def test_a_declaration_that_names_no_row_is_refused(locks: str) -> None:
    with pytest.raises(TypeError, match="_plain: locks="):
        verb(locks=locks)(_plain)


@pytest.mark.parametrize(
    "declared", [{}, {"reads": True, "sweep": True}, {"locks": "", "reads": True}, {"locks": "", "sweep": True}]
)
def test_a_verb_declares_one_of_three(declared: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="A verb declares one of locks=…, sweep=True and reads=True"):
        verb(**declared)


def test_a_bare_verb_is_refused() -> None:
    with pytest.raises(TypeError, match="A verb declares one of"):
        verb(_plain)  # type: ignore[arg-type]


def test_a_sweep_and_a_weight_may_depend_on_the_arguments() -> None:
    def is_long(arguments: dict[str, Any]) -> bool:
        return len(arguments["waits"]) > 1

    declared = verb(locks="", sweep=is_long, weight=lambda arguments: 2 * len(arguments["waits"]))(_plain)
    few, many = declared(id="x", waits=WAITS[:1]), declared(id="x", waits=WAITS)
    assert (few.is_sweep(), few.weight()) == (False, 2)
    assert (many.is_sweep(), many.weight()) == (True, 6)
    assert verb(sweep=True)(_plain)(id="x").is_sweep()
    assert verb(reads=True)(_plain)(id="x").weight() == 1


@cache
def _read(function: FunctionType) -> tuple[set[str], set[FunctionType]]:
    """The texts in a function, except compared texts, and the verbs' functions that the function names."""
    texts: set[str] = set()
    functions: set[FunctionType] = set()
    nodes: list[ast.AST] = [ast.parse(textwrap.dedent(inspect.getsource(function)))]
    for node in nodes:
        value: object = None
        match node:
            case ast.Compare():
                continue
            case ast.Constant(value=str(text)):
                texts.add(text)
            case ast.Name():
                value = function.__globals__.get(node.id)
            case ast.Attribute(value=ast.Name(id=module)):
                value = getattr(At if module == "at" else function.__globals__.get(module), node.attr, None)
        nodes.extend(ast.iter_child_nodes(node))
        inner: Any = inspect.unwrap(value) if isinstance(value, FunctionType) else None
        if inner is not None and inner.__module__.startswith("perdure.store.verbs."):
            functions.add(inner)
    return texts, functions


def test_a_verb_changes_something_unless_it_declares_that_it_looks() -> None:
    writing = {name for name, statement in load("postgres").items() if statement.writes}
    for name, declaration in declarations():
        assert isinstance(declaration.function, FunctionType)
        functions = [declaration.function]
        for function in functions:
            functions.extend(_read(function)[1].difference(functions))
        written = {text for function in functions for text in _read(function)[0] & writing}
        assert bool(written) != declaration.reads, (name, written)
