"""The worker finds the lines that a replay runs differently, and leaves other code alone."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.embedded import embedded
from perdure.sdk.workers.code_checks import find_in_code
from perdure.sdk.workflows.workflow import Registry

NAME = "שלום" * 50
PROGRAM = f"""
import asyncio, os, random, secrets, subprocess, threading, time, uuid
import datetime as dates
from datetime import date, datetime
from random import choice as pick
from time import time as clock
from perdure import Context, step, workflow
URLS = {{"a", "b"}}
own = random.Random(5)
limit = 2**63

@step
async def fetch(url: str = "") -> str:
    return url + str(time.time()) + str(uuid.uuid4())

def helper() -> float:
    return clock()  # FOUND

def {NAME}() -> float:
    return helper() + own.random()

def random_but_mine() -> int:
    return limit

def undated(day=date.today()) -> None: ...

@workflow
async def found(ctx: Context, urls: list[str]) -> None:
    {NAME}()
    time.time(), time.monotonic()  # FOUND
    datetime.now(), dates.datetime.utcnow(), date.today()  # FOUND
    uuid.uuid4()  # FOUND
    pick(urls)  # FOUND
    random.shuffle(urls)  # FOUND
    secrets.token_hex()  # FOUND
    os.urandom(3)  # FOUND
    with open("x") as file:  # FOUND
        file.read()
    threading.Thread(target=print)  # FOUND
    subprocess.run(["true"])  # FOUND
    time.time()  # perdure: ok
    async def inner() -> None:
        from time import perf_counter as counter
        counter()  # FOUND
    await inner()

@workflow
async def fine(ctx: Context, uuid: Any = None) -> None:
    random_but_mine()
    undated()
    uuid.uuid4()
    open = print
    open("x")
    ctx.now(), ctx.random.choice([1]), datetime(2020, 1, 1), own.random()
    async def body() -> float:
        return time.time()
    await ctx.step("passed", body)
    await ctx.step("passed", time.time)
    await ctx.step("a lambda", lambda: time.time())
    await fetch()
    @step
    async def within() -> float:
        return time.time()
    await within()

@workflow
async def sets(ctx: Context, given: set[str]) -> None:
    await asyncio.gather(*(fetch(url) for url in URLS))  # SET
    async def branch(url: str) -> None: ...
    more = set(["a"]) | given
    async with asyncio.TaskGroup() as group:
        for url in list(more):  # SET
            group.create_task(branch(url))
        for url in given:  # SET
            if url:
                await ctx.step("named", len, url)
    await asyncio.gather(*map(fetch, given.union("c")))  # SET
    await asyncio.gather(*{{fetch("a"), fetch("b")}})  # SET
    [child_of(url) for url in {{"a", "b"}}]  # SET

@workflow
async def child_of(ctx: Context) -> None: ...

@workflow
async def lists(ctx: Context, given: set[str]) -> None:
    for url in sorted(given):
        await fetch(url)
    tasks = {{asyncio.create_task(fetch(url)) for url in ["a", "b"]}}
    await asyncio.wait(tasks)
    [len(url) for url in given]
    names = {{"a", "b"}}
    names = ["a"]
    await asyncio.gather(*[fetch(name) for name in names])
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "a program.py"
    path.write_text(f"from typing import Any\n{PROGRAM}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("a_program", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["a_program"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["a_program"]


def marked(program: Any, mark: str) -> list[tuple[str, int]]:
    lines = Path(program.__file__).read_text(encoding="utf-8").splitlines()
    return [(program.__file__, number) for number, line in enumerate(lines, 1) if line.endswith(mark)]


def lines_of(workflow: Any, *, sets: bool = False) -> list[tuple[str, int]]:
    return sorted({(one.file, one.line) for one in find_in_code(workflow.fn, sets=sets)})


def test_clocks_randomness_files_and_threads_are_found_with_line_and_remedy(program: Any) -> None:
    assert lines_of(program.found) == marked(program, "# FOUND")
    texts = [one.text for one in find_in_code(program.found.fn)]
    assert "uuid.uuid4() in workflow code differs in a replay; use ctx.uuid()" in texts
    assert "dates.datetime.utcnow() in workflow code differs in a replay; use ctx.now()" in texts
    assert len(texts) == len(marked(program, "# FOUND")) + 3


def test_steps_functions_passed_on_and_other_names_are_left_alone(program: Any) -> None:
    assert find_in_code(program.fine.fn, sets=True) == []


def test_calls_in_the_order_of_a_set_are_found(program: Any) -> None:
    assert lines_of(program.sets, sets=True) == marked(program, "# SET")
    assert find_in_code(program.sets.fn) == []
    assert find_in_code(program.lists.fn, sets=True) == []


def test_code_without_a_file_and_odd_code_raise_nothing(program: Any) -> None:
    names: dict[str, Any] = {"time": __import__("time")}
    exec("async def f(ctx):\n    time.time()", names)
    assert find_in_code(names["f"], sets=True) == []
    assert find_in_code(len) == []
    Path(program.__file__).write_text("(" * 10_000)
    assert find_in_code(program.found.fn, sets=True) == []
    Path(program.__file__).unlink()
    assert find_in_code(program.found.fn, sets=True) == []


async def test_the_worker_says_each_line_once(program: Any, database: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "perdure.worker"):
        async with embedded(database, Registry(program.found, program.fine, program.sets)):
            pass
    said = [record.getMessage() for record in caplog.records if program.__file__ in record.getMessage()]
    assert len(said) == len(set(said)) == len(find_in_code(program.found.fn))
    first = marked(program, "# FOUND")[0][1]
    assert f"{program.__file__}:{first}: clock() in workflow code differs in a replay; use ctx.now()." in said
