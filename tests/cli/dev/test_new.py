"""`perdure new`: files, questions, and refusals."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic_ai.models import KnownModelName
from tests.cli.processes import PERDURE, House, Terminal

from perdure.cli.processes.new import MODELS, ProjectKind, Provider


def new(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PERDURE, "new", str(folder), *options], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_a_web_application_passes_its_tests(tmp_path: Path) -> None:
    """The other kinds: test_dev.py and test_agents.py."""
    assert new(tmp_path / "shop", "--kind", "fastapi").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ProjectKind)
def test_its_image_is_found_well_by_the_linter(kind: ProjectKind, tmp_path: Path) -> None:
    new(tmp_path / "shop", "--kind", kind)
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():
        pytest.skip("the linter's wheels are for Linux")
    done = subprocess.run([linter, "--no-color", "Dockerfile"], cwd=tmp_path / "shop", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_each_provider_has_a_model_that_the_library_knows() -> None:
    known = get_args(KnownModelName.__value__)
    assert {MODELS[provider] for provider in Provider} <= set(known)


def test_a_provider_means_an_agent_and_its_key(tmp_path: Path) -> None:
    done = new(tmp_path / "desk", "--provider", "anthropic")
    assert "export ANTHROPIC_API_KEY=" in done.stdout
    assert '"pydantic-ai-slim[anthropic]"' in (tmp_path / "desk/pyproject.toml").read_text()
    assert MODELS[Provider.ANTHROPIC] in (tmp_path / "desk/app.py").read_text()


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("mine")
    done = new(tmp_path)
    assert done.returncode != 0 and "has app.py already" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["app.py"]


def test_a_provider_for_a_workflow_is_refused(tmp_path: Path) -> None:
    done = new(tmp_path / "x", "--kind", "workflow", "--provider", "openai")
    assert done.returncode != 0 and "--provider is for agents" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_terminal_is_asked_for_kind_and_provider(house: House) -> None:
    with Terminal(house, "new", "desk") as terminal:
        terminal.expect("Kind: workflow, agent, fastapi [workflow]")
        terminal.press("robot\n")
        terminal.expect("Kind: workflow, agent, fastapi [workflow]")
        terminal.press("agent\n")
        terminal.expect("Model provider")
        terminal.press("google\n")
        terminal.expect("export GOOGLE_API_KEY")
