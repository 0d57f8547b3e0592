"""Writes a new project."""

import re
import shlex
import sys
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Final, TypeVar

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.options import JsonFlag
from perdure.cli.base.output import emit, say

C = TypeVar("C", bound=StrEnum)


class ProjectKind(StrEnum):
    WORKFLOW = "workflow"
    AGENT = "agent"
    FASTAPI = "fastapi"


class Provider(StrEnum):
    TEST = "test"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    GROQ = "groq"
    MISTRAL = "mistral"


WORK: Final = ("perdure", "work", "/app/app.py")
SERVE: Final = ("uvicorn", "--app-dir", "/app", "--host", "0.0.0.0", "app:app")
NEEDS: Final = {
    ProjectKind.WORKFLOW: (("perdure",), ("pytest",), WORK, "perdure dev app.py"),
    ProjectKind.AGENT: (("perdure[agents]",), ("pytest",), WORK, "perdure dev app.py"),
    ProjectKind.FASTAPI: (("perdure", "fastapi", "uvicorn"), ("pytest", "httpx2"), SERVE, "uvicorn app:app"),
}
"""Dependencies, those of tests, the container's command, and the command for a person."""
RENAMED: Final = {"gitignore": ".gitignore", "pyproject": "pyproject.toml"}
"""Tools would read templates with the real names as files of this repository."""
MODELS: Final = {
    Provider.TEST: "test",
    Provider.OPENAI: "openai:gpt-6-luna",
    Provider.ANTHROPIC: "anthropic:claude-sonnet-5-5",
    Provider.GOOGLE: "google:gemini-3.8-flash",
    Provider.GROQ: "groq:openai/gpt-oss-120b",
    Provider.MISTRAL: "mistral:mistral-medium-latest",
}


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Start", new)


def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write it in; made if missing.")],
    kind: Annotated[
        ProjectKind | None, typer.Option("--kind", help="Asked for in a terminal, else a workflow.")
    ] = None,
    provider: Annotated[
        Provider | None,
        typer.Option("--provider", help="Of an agent's model. Asked for in a terminal, else `test`, without a key."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a project that runs, with tests and a Dockerfile."""
    if directory.exists() and not directory.is_dir():
        raise Refused(f"{str(directory)!r} is a file; name a folder.")
    asks = sys.stdin.isatty() and not as_json
    if kind is None and provider is not None:
        kind = ProjectKind.AGENT
    elif kind is None:
        kind = _asked("ProjectKind", ProjectKind) if asks else ProjectKind.WORKFLOW
    if provider is not None and kind is not ProjectKind.AGENT:
        raise Refused(f"--provider is for agents; leave it out, or write --kind agent instead of {kind.value}.")
    if provider is None:
        provider = _asked("Model provider", Provider) if asks and kind is ProjectKind.AGENT else Provider.TEST
    written = _texts(directory, kind, provider)
    there = [file for file in written if (directory / file).exists()]
    if there:
        raise Refused(f"{str(directory)!r} has {there[0]} already; name another folder.")
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in written.items():
        (directory / file).write_text(text, encoding="utf-8")
    if as_json:
        emit({"directory": str(directory), "kind": kind.value, "files": list(written)})
        return
    say(f"Wrote {', '.join(written)} to {directory}. Next:\n")
    if directory.resolve() != Path.cwd():
        say(f"    cd {shlex.quote(str(directory))}")
    say("    pip install -e .")
    if provider is not Provider.TEST:
        say(f"    export {_key_name(provider)}=…")
    say(f"    {NEEDS[kind][-1]}\n")


def _asked(question: str, choices: type[C]) -> C:
    text = f"{question}: {', '.join(choices)}"
    answer: C = typer.prompt(text, default=next(iter(choices)), type=choices, show_choices=False)
    return answer


def _key_name(provider: Provider) -> str:
    return f"{provider.upper()}_API_KEY"


def _texts(directory: Path, kind: ProjectKind, provider: Provider) -> dict[str, str]:
    needed, dev, command, _ = NEEDS[kind]
    dependencies = list(needed)
    key = ""
    if kind is ProjectKind.AGENT and provider is not Provider.TEST:
        dependencies.append(f"pydantic-ai-slim[{provider.value}]")
        key = _key_name(provider)
    name = re.sub(r"[^a-z0-9-]+", "-", directory.resolve().name.lower()).strip("-") or "workflows"
    if name in dependencies:
        name += "-app"  # a package cannot depend on its own name
    values = {
        "name": name,
        "model": MODELS[provider],
        "dependencies": _quoted(dependencies),
        "dev": _quoted(dev),
        "command": _quoted(command),
        "export": f"export {key}=…\n    " if key else "",
        "and_key": f", and {key}" if key else "",
    }
    templates = files("perdure.cli") / "templates"
    return {
        RENAMED.get(file.name, file.name): Template(file.read_text("utf-8")).substitute(values)
        for part in (kind.value, "all")
        for file in sorted((templates / part).iterdir(), key=lambda file: (file.name != "app.py", file.name))
        if file.is_file()
    }


def _quoted(texts: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)
