"""The plan of the house, as far as import-linter cannot see it."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "perdure"

# Only these re-export; a room's door opens on nothing but its docstring.
RE_EXPORTING = {SOURCE / "__init__.py", SOURCE / "agents" / "__init__.py"}
DOORS = sorted(set(SOURCE.rglob("__init__.py")) - RE_EXPORTING)

WRITTEN_BY_HAND = {".py", ".sql", ".sh", ".md", ".toml", ".txt", ".yaml", ".yml", ".html", ".css", ".js", ".ts", ".tsx"}
WRITTEN_ELSEWHERE = {"node_modules", "dist", "build", "__pycache__"}
MACHINE_PATH = re.compile(r"(?<![\w.})-])/(?:work|root|opt|home|Users)/[\w.]")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def files_written_by_hand() -> Iterator[Path]:
    yield from (ROOT / name for name in ("Makefile", ".ci/run"))
    yield from (path for path in ROOT.glob("*") if path.suffix in WRITTEN_BY_HAND)
    for room in ("src", "tests", "examples", "benchmarks", "scripts", "docs", "requirements", "dashboard"):
        for path in (ROOT / room).rglob("*"):
            if path.suffix in WRITTEN_BY_HAND and not WRITTEN_ELSEWHERE & set(path.parts[len(ROOT.parts) :]):
                yield path


WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
AGENTS = [path for path in WITH_EXAMPLES if path.parent.name == "agents"]
"""Left to their own tests: they take seconds to load."""


def run_examples(path: Path) -> None:
    """Run the examples in a module's docstrings."""
    module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("path", sorted(set(WITH_EXAMPLES) - set(AGENTS)), ids=name_of)
def test_the_examples_of_docstrings_give_what_they_say(path: Path) -> None:
    run_examples(path)


@pytest.mark.parametrize("door", DOORS, ids=name_of)
def test_a_package_opens_on_its_docstring_alone(door: Path) -> None:
    match ast.parse(door.read_text(encoding="utf-8")).body:
        case [ast.Expr(value=ast.Constant(value=str(sentence)))]:
            assert sentence.strip()
        case _:
            pytest.fail(f"{name_of(door)} holds more (or less) than a docstring")


def test_importing_perdure_loads_no_server_code() -> None:
    program = "import sys, perdure; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    server_wing = ("perdure.server", "perdure.engine", "perdure.store", "perdure.cli", "starlette", "uvicorn", "apsw")
    assert "perdure" in loaded
    assert [name for name in loaded if name.startswith(server_wing)] == []


def test_nothing_but_agents_loads_the_library_of_agents() -> None:
    """It takes seconds to load, and who has no agents need not have it."""
    paths = [path for path in SOURCE.rglob("*.py") if not path.is_relative_to(SOURCE / "agents")]
    names = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]
    assert {"perdure", "perdure.cli.main", "perdure.cli.conversation", "perdure.server.app"} <= set(names)
    program = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.split(".")[0] in ("pydantic", "pydantic_core", "pydantic_ai")] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:80]}"
        for path in files_written_by_hand()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("pins", sorted((ROOT / "requirements").glob("*.txt")), ids=name_of)
def test_requirements_are_pinned_hashed_and_bound_to_no_index(pins: Path) -> None:
    text = pins.read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index|--extra-index|--find-links|--trusted-host|^-", text, re.MULTILINE)
    requirements = [
        part for part in text.replace("\\\n", " ").splitlines() if part and not part.lstrip().startswith("#")
    ]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement
