"""`perdure check`: one line for each finding, and the exit code for CI."""

import subprocess
from pathlib import Path

import pytest
from tests.cli.processes import PERDURE, SECONDS

HEAD = "from perdure import Budget, Context, Queue, Registry, Schedule, step, workflow\n"
LONG = "x" * 300


def check(folder: Path, source: str, target: str = "app.py") -> tuple[int, list[str]]:
    (folder / "app.py").write_text(f"{HEAD}{source}", encoding="utf-8")
    done = subprocess.run([*PERDURE, "check", target], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_good_application_gives_a_short_line_and_0(tmp_path: Path) -> None:
    source = "@step\nasync def one() -> int: ...\n@workflow(schedule='0 9 * * *')\nasync def שלום(ctx: Context): ...\n"
    assert check(tmp_path, source) == (0, ["app.py: checked 1 workflows, found nothing."])
    assert check(tmp_path, source, "app")[0] == 0
    assert check(tmp_path, source, "app.py:שלום")[0] == 0


WORKFLOW = "@workflow\nasync def one(ctx: Context, input: int = 0) -> None:\n    {}\n"
FINDINGS = {
    "import nothing_there": (2, "No module named 'nothing_there'"),
    "1 / 0": (2, "ZeroDivisionError"),
    "raise SystemExit(3)": (2, "SystemExit: 3"),
    "def f(:": (2, "invalid syntax"),
    "pass": (0, "has no workflows"),
    "@workflow(retires=3)\nasync def one(ctx): ...": (
        2,
        "no option 'retires'. Did you mean 'retry'? It takes name, retry",
    ),
    "@step(tiemout=3)\nasync def one(): ...": (2, "no option 'tiemout'. Did you mean 'timeout'?"),
    "@step(timeout='3')\nasync def one(): ...": (2, "timeout wants seconds or a timedelta, got '3'"),
    "@workflow(searchable='customer')\nasync def one(ctx): ...": (2, "searchable"),
    "@workflow(schedule='0 25 * * *')\nasync def one(ctx): ...": (2, "25"),
    "@workflow(schedule=Schedule('0 9 * * *', input=3))\nasync def one(ctx): ...": (2, "takes no input"),
    f"@workflow(name='{LONG}')\nasync def one(ctx): ...": (2, "300 bytes"),
    "@workflow\nasync def one(ctx: Context, input: 'Nope') -> None: ...": (2, "'Nope'"),
    "@step\nasync def two() -> 'Nope': ...\n" + WORKFLOW.format("pass"): (2, "'Nope'"),
    "import random\n" + WORKFLOW.format("random.random()"): (5, "use ctx.random"),
    "import asyncio\n@step\nasync def two(n: int) -> int: ...\n"
    + WORKFLOW.format("await asyncio.gather(*(two(n) for n in {1, 2}))"): (7, "in the order of a set"),
    "@workflow\nasync def one(ctx): ...\n@workflow(name='one')\nasync def two(ctx): ...": (
        0,
        "Two workflows are called",
    ),
    "from pydantic_ai import Agent\nfrom pydantic_ai.models.test import TestModel\nfrom perdure.agents import durable\n"
    "one = durable(Agent(TestModel(), name='one'), budget=Budget(usd=1))\n"
    "two = durable(Agent('test', name='two'), budget=Budget(calls=1))": (0, "price of its model 'test'"),
}


@pytest.mark.parametrize("source", FINDINGS)
def test_a_finding_is_one_line_with_its_place_and_1(tmp_path: Path, source: str) -> None:
    line, text = FINDINGS[source]
    code, lines = check(tmp_path, source)
    assert code == 1
    (found,) = lines
    assert text in found
    assert found.startswith(f"app.py:{line}: " if line else ("app.py: ", "'app.py' "))


def test_findings_are_sorted_and_leave_none_out(tmp_path: Path) -> None:
    source = (
        "import time\n@workflow\nasync def b(ctx):\n    time.time()\n@workflow\nasync def a(ctx: 'Nope') -> 'No': ...\n"
    )
    code, lines = check(tmp_path, source)
    assert (code, [line.split(" ")[0] for line in lines]) == (1, ["app.py:5:", "app.py:6:"])


def test_a_worker_says_in_one_line_that_two_workflows_have_one_name(tmp_path: Path) -> None:
    source = "two = Registry()\n@two.workflow(name='one')\nasync def other(ctx): ...\n"
    (tmp_path / "app.py").write_text(HEAD + WORKFLOW.format("pass") + source, encoding="utf-8")
    command = [*PERDURE, "work", "app.py", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert done.stderr.startswith("perdure: app.py: Two workflows are called 'one'")
    assert len(done.stderr.splitlines()) == 1
