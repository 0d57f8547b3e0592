"""Check an application without a server."""

import inspect
import os
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.base.commands import FAILED, Refused, add_commands

if TYPE_CHECKING:
    from perdure.sdk.workers.code_checks import Finding
    from perdure.sdk.workflows.workflow import Registry


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Start", check)


def check(
    target: Annotated[str, typer.Argument(help="app.py, a module, or module:attribute", metavar="APP")],
) -> None:
    """Check an application without a server, for CI. The exit code is 1 if there are findings.

    Looks at imports, options, names, types, schedules, searchable fields, models with a budget in money but no price,
    and code that a replay runs differently. A comment `# perdure: ok` accepts such a line.
    """
    from perdure.cli.processes import app_loader

    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    try:
        registry = app_loader.find(target)
        found = [f"{file}:{line}: {text}" for file, line, text in sorted(set(_findings(registry, target)))]
        found = found or [f"{target}: {whole}" for whole in _refusals(registry)]
    except Refused as error:
        found = [str(error)]
    for one in found:
        typer.echo(" ".join(one.removeprefix(f"{os.getcwd()}{os.sep}").replace(":0: ", ": ", 1).split()))
    if found:
        raise typer.Exit(FAILED)
    typer.echo(f"{target}: checked {len(registry.workflows)} workflows, found nothing.")


def _findings(registry: "Registry", target: str) -> "Iterator[Finding]":
    from perdure.sdk.workers.code_checks import Finding, find_in_code
    from perdure.sdk.workflows.steps import step_plan
    from perdure.sdk.workflows.workflow import Registry

    for one in registry:
        code, names = one.fn.__code__, one.fn.__globals__
        is_ours = names.get("__package__") == "perdure.agents"
        place = (target, 0) if is_ours else (code.co_filename, code.co_firstlineno)
        for refusal in _refusals(Registry(one)):
            yield Finding(*place, refusal)
        try:
            for model in one.unpriced():
                yield Finding(
                    *place,
                    f"Agent {one.name!r} has a budget in money, and the price of its model {model!r} is not known, so "
                    "its calls are refused. Give durable() a price=.",
                )
        except Exception as error:  # prices come from a function of the program
            yield Finding(*place, f"The price of {one.name!r} failed: {error!r}")
        yield from find_in_code(one.fn, sets=True)
        for value in [value for value in names.values() if isinstance(value, FunctionType)]:
            if "_perdure_step" in vars(value):
                try:
                    step_plan(value)
                except TypeError as error:
                    code = inspect.unwrap(value).__code__
                    yield Finding(code.co_filename, code.co_firstlineno, str(error))


def _refusals(registry: "Registry") -> list[str]:
    import asyncio

    from perdure.engine.runs.registrations import check_registration
    from perdure.wire.base.errors import PerdureError
    from perdure.wire.runs.requests import RegisterRequest

    try:
        for one in registry:
            one.check_hints()
        given: dict[str, Any] = dict(
            zip(("workflows", "queues", "schedules", "triggers"), registry.specs(), strict=True)
        )
        request = RegisterRequest(worker_id="check", deployment_id="default", python="3", capacity=1, **given)
        asyncio.run(check_registration(request))
    except (TypeError, ValueError, PerdureError) as error:
        return [str(error)]
    return []
