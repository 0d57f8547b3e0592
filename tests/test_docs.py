"""The pages are true: the Python blocks run, and do what the surrounding text says."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from scripts import tables
from tests.documented import DOCS, Page, blocks

import perdure.testing
from perdure import Budget, Client, Context, Handle, Registry, Workflow, step, workflow
from perdure.cli.main import app
from perdure.engine.outside import dispatch, webhooks
from perdure.sdk.clients.schedules import Schedules
from perdure.sdk.clients.sync import SyncClient, SyncHandle
from perdure.sdk.workers.step_threads import THREADS_MAX
from perdure.sdk.workflows.events import WaitOptions
from perdure.sdk.workflows.execution_state import ExecutionState
from perdure.sdk.workflows.start_options import ChildOptions, StartOptions
from perdure.sdk.workflows.steps import StepChoices
from perdure.server.app import all_routes
from perdure.server.process.settings import Settings, load
from perdure.server.telemetry.health import Health
from perdure.server.telemetry.metrics import exposition
from perdure.store.verbs.runs import streams
from perdure.testing import embedded
from perdure.wire.base import limits
from perdure.wire.base.errors import BadRequest, PerdureError, error_classes
from perdure.wire.base.signatures import make_secret, signed_headers
from perdure.wire.base.status import STATUS, Phase
from perdure.wire.clock import schedules
from perdure.wire.people.accounts import PASSWORD_CHARACTERS_MIN
from perdure.wire.people.signing import OVERLAP_HOURS
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.streams import ITEM_BYTES_MAX

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
SOURCE = ROOT / "src" / "perdure"

RUN = {"budgets", "client", "schedules", "sessions", "streams", "triggers", "webhooks", "workflows"}
RUN_ELSEWHERE = {"agents", "testing"}
"""Pages whose blocks are run: below, and in tests/agents/test_docs.py and tests/test_testing.py."""


def test_a_page_with_python_blocks_has_a_test_that_runs_them() -> None:
    assert {page.stem for page in DOCS.glob("*.md") if blocks(page.stem)} == RUN | RUN_ELSEWHERE


async def test_workflows() -> None:
    page = Page("workflows")
    for name, given, expected in (
        ("order", 7, "<p>receipt-7</p>"),
        ("raffle", ["ann"], r"ann wins with ticket \w{4}"),
        ("bills", [7, 8], r"\['receipt-7', 'receipt-8'\]"),
        ("ship", 7, "parcel 7, parcel 7"),
        ("offer", 7, "1.20"),
        ("deliver", 7, "not scanned"),
        ("all_orders", [7, 8], r"\['<p>receipt-7</p>', '<p>receipt-8</p>'\]"),
        ("checkout", 7, "refunded"),
    ):
        module = await page.run()
        async with embedded(Registry(*{module.order, getattr(module, name)})) as p:
            handle = await p.start(getattr(module, name), given)
            assert re.fullmatch(expected, str(await handle.result())), name
    module = await page.run()
    async with embedded(module.app) as p:
        await (await p.start(module.send, "ann@example.com", concurrency_key="example.com")).result()
    assert page.all_ran


async def test_schedules() -> None:
    page = Page("schedules")
    module = await page.run()
    async with embedded(Registry(module.report), skip_time=False) as p:
        await page.run(client=p)
        declared, made = sorted(await p.schedules.list(), key=lambda one: one.key)
        assert (declared.key, declared.timezone) == ("default", "Europe/Berlin")
        assert (made.key, made.timezone, made.overlap) == ("tokyo", "Asia/Tokyo", "skip")
        assert str(await (await p.schedules.run(made.id)).result()).startswith("for ")
    assert page.all_ran


async def test_triggers() -> None:
    page = Page("triggers")
    module = await page.run()
    async with embedded(Registry(module.confirm, module.book), skip_time=False) as p:
        await p.settle()
        for order in range(3):
            await p.publish("orders", {"order": order})
        await p.settle()
        await p.advance(5)
        await p.settle()
        for workflow, started in (("confirm", 3), ("book", 1)):
            found = await p.list(ListFilters(workflow_id=workflow))
            assert [one.phase for one in found.executions] == ["completed"] * started, workflow
    assert page.all_ran


async def test_budgets() -> None:
    page = Page("budgets")
    module = await page.run()
    async with embedded(Registry(module.research)) as p:
        handle = await p.start(module.research, "what?", budget=Budget(usd=1))
        assert await handle.result() == "the answer to what?"
        assert (await p.budget(handle.id)).usd_micros.spent == 7_500
    assert page.all_ran


async def test_sessions() -> None:
    async def ask(before: list[msgspec.Raw], text: str) -> dict[str, str]:
        return {"role": "assistant", "content": f"{len(before)} messages, and then {text!r}"}

    page = Page("sessions")
    module = await page.run(ask=ask)
    async with embedded(Registry(module.talk)) as p:
        for before, text in enumerate(("hello", "and again")):
            handle = await p.start(module.talk, text, session_id="ann")
            assert await handle.result() == f"{2 * before} messages, and then {text!r}"
    assert page.all_ran


async def test_streams() -> None:
    async def model(question: str) -> AsyncIterator[str]:
        for token in ("On ", "its ", "way."):
            yield token

    shown: list[object] = []
    page = Page("streams")
    module = await page.run(model=model)
    async with embedded(Registry(module.support)) as p:
        await page.run(client=p, clear=shown.clear, show=lambda id, key, data: shown.append((key, data)))
    assert shown == [("answer", "On "), ("answer", "its "), ("answer", "way.")]
    assert module.result == "On its way."
    assert page.all_ran


async def test_webhooks() -> None:
    page = Page("webhooks")
    module = await page.run()
    secret, body = make_secret(), b'{"type": "execution.completed"}'
    headers = signed_headers([secret], "msg_1", int(time.time()), body)
    module.receive(secret, headers, body)
    with pytest.raises(BadRequest):
        module.receive(secret, headers, body + b" ")
    assert page.all_ran


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def noted() -> dict[str, str]:
    """What the code says of each setting, in the text below it."""
    found: dict[str, str] = {}
    for path in ("server/process/settings.py", "engine/base/settings.py", "wire/base/limits.py"):
        tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
        bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
        for one, below in (pair for body in bodies for pair in itertools.pairwise(body)):
            match one, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(note))):
                    found[name] = " ".join(note.split())
    return found


def shown(name: str, value: object) -> str:
    """A default as the page has it."""
    match value:
        case None | "" | () | {}:
            return "–"
        case bool():
            return f"`{str(value).lower()}`"
        case int() if "bytes" in name.lower():
            return f"{value >> 20} MiB" if value % (1 << 20) == 0 else f"{value >> 10} KiB"
        case int() | float() if name != "port":
            return f"{value:,.15g}"
        case _:
            return f"`{value}`"


def rows(page: str) -> list[tuple[str, ...]]:
    """The rows of a page's tables, cell by cell, without their heads."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def test_the_page_of_settings_has_all_with_default_and_meaning() -> None:
    notes = noted()
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    defaults = {
        name: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        for name, field in fields.items()
    }
    expected = {(f"`{name}`", shown(name, value), notes[name]) for name, value in defaults.items()}
    expected |= {
        (f"`{variable}`", shown(name, getattr(limits, name)), notes[name])
        for name, variable in limits.VARIABLES.items()
    }
    found = {row for row in rows("settings") if len(row) == 3 and row[1] != "default"}
    assert found == expected


def test_a_file_and_the_environment_say_the_same(tmp_path: Path) -> None:
    fences = dict(re.findall(r"^```(toml|sh)\n(.*?)^```", text_of("settings"), re.MULTILINE | re.DOTALL))
    file = tmp_path / "perdure.toml"
    file.write_text(fences["toml"])
    settings = load(file=str(file), environ={})
    assert settings == load(environ=dict(line.split("=", 1) for line in fences["sh"].splitlines()))
    assert settings.retention_workflows == {"report": 7, "order": 90}


def test_the_page_of_errors_has_all() -> None:
    kinds = {kind for kind in error_classes() if kind is not PerdureError}
    expected = {(f"{kind.status}", f"`{kind.code}`", f"`{kind.__name__}`", kind.retryable) for kind in kinds}
    assert {(*row[:3], row[3].startswith("↻")) for row in rows("errors") if len(row) == 4} - {
        ("status", "`error_type`", "class", False)
    } == expected


def test_the_page_of_phases_has_all_with_their_statuses() -> None:
    assert [(phase, status) for phase, status, *_ in rows("phases")][1:] == [
        (f"`{phase}`", f"`{STATUS[phase]}`") for phase in Phase
    ]


async def test_the_page_of_metrics_has_all() -> None:
    async with embedded(Registry()) as p:
        page = await exposition(p.engine, None, Health(p.engine.health), 0, 0)
    told = dict(re.findall(r"^# HELP (\w+) (.*)$", page, re.MULTILINE))
    assert {(f"`{name}`", note) for name, note in told.items()} <= set(rows("metrics"))
    known = {row[0] for row in rows("metrics") if row[0].startswith("`perdure_")}
    assert known == {f"`{name}`" for name in told}


@pytest.mark.parametrize("path", tables.pages(), ids=lambda path: path.stem)
def test_the_tables_of_commands_and_routes_are_those_of_their_declarations(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == tables.pages()[path], "run `make tables`"


def test_the_tables_of_routes_name_no_other_path() -> None:
    paths = {tables.plain(route.path) for route in all_routes()}
    named = tables.paths_in(text_of("http-api"))
    assert {path for path in named if path.startswith("/api/")} - paths == {
        "/api/v1/auth/…",
        "/api/v1/projects/…",
    } & named


async def test_clients() -> None:
    @workflow
    async def order(ctx: Context, order_id: int) -> str:
        if order_id < 0:
            raise ValueError("no such order")
        return f"receipt-{order_id}"

    page = Page("client")
    module = await page.run()
    await module.client.close()
    async with embedded(Registry(order)) as p:
        module = await page.run(client=p, order=order)
        await page.run()
        assert module.receipt == "receipt-7"
        module = await page.run()
        assert module.one.id == module.handle.id and module.page.executions == []
    assert page.all_ran


def test_the_page_of_clients_has_every_call_and_option() -> None:
    page = text_of("client")
    for kind in (Client, Handle, SyncClient, SyncHandle, Schedules):
        names = {name for name in vars(kind) if not name.startswith("_")} - {"worker"}
        assert {name for name in names if not re.search(rf"\b{name}\b", page)} == set(), kind
    options = {name for row in rows("client") for name in re.findall(r"`(\w+)`", row[0])}
    assert set(StartOptions.__annotations__) <= options


def test_commands_on_the_pages_have_the_options_that_they_name() -> None:
    root = typer.main.get_command(app)
    for page in (ROOT / "README.md", *PAGES):
        for called in re.finditer(r"\bperdure (?=[a-z])([^`\n#]*)", page.read_text(encoding="utf-8")):
            command: Any = root
            words = called[1].split()
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", called[1])) <= known, f"{page.name}: {called[0]}"


def slug(heading: str) -> str:
    """The anchor of a heading, as sites that show the pages make the anchor."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", "")).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_links_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *PAGES, *ROOT.glob("benchmarks/*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if link.startswith(("http://", "https://")):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                text = re.sub(r"^```.*?^```", "", target.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
                assert anchor in map(slug, re.findall(r"^#+ (.*)$", text, re.MULTILINE)), f"{page.name}: {link}"


async def test_the_journal_of_how_it_works() -> None:
    @step
    async def charge(order_id: int) -> str:
        return f"receipt-{order_id}"

    @step
    async def mail(text: str) -> None: ...

    @workflow
    async def order(ctx: Context, order_id: int) -> None:
        receipt = await charge(order_id)
        await ctx.sleep(3_600)
        await mail(receipt)

    async with embedded(Registry(order)) as p:
        handle = await p.start(order, 7)
        await handle.result()
        journal = [(str(row.seq), str(row.kind)) for row in await p.journal(handle.id)]
    assert [row[:2] for row in rows("understand/how-it-works")[1:]] == journal


def test_troubleshooting_quotes_what_perdure_says() -> None:
    paths = [SOURCE / "wire" / "insight" / "explain_queued.py", *(SOURCE / "store").rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    said = [quote for row in rows("understand/troubleshooting") for quote in re.findall(r"`([^`]+)`", row[0])]
    assert [quote for quote in said if quote not in code and quote != "is open in another process"] == []
    assert len(said) > 10


def test_the_readme_names_the_version() -> None:
    assert f"\nVersion {version('perdure')} · " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_public_names_are_on_a_page() -> None:
    """tests/agents/test_docs.py looks for the names of `perdure.agents`: loading agents takes seconds."""
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *PAGES))
    names = {*perdure.__all__, *perdure.testing.__all__, "embedded"}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_the_numbers_of_the_pages_are_those_of_the_code() -> None:
    """The numbers of docs/postgresql.md are checked in tests/store/drivers/test_guide.py."""
    first, second, third, *_ = webhooks.PAUSES_SECONDS
    settings = Settings()
    for page, said in (
        (
            "webhooks",
            f"answered with 2xx within {webhooks.CALL_SECONDS:.0f} s: at once, then after {first} s, {second} s",
        ),
        ("webhooks", f"{third // 60} min and longer pauses, eleven times in about two days"),
        ("webhooks", f"of more than {webhooks.BODY_BYTES_MAX >> 10} KiB together are left out"),
        ("webhooks", f"For `overlap_hours` ({OVERLAP_HOURS:.0f})"),
        ("push-workers", f"up to {dispatch.CALLS_MAX} calls at a time"),
        ("push-workers", f"for {dispatch.REST_SECONDS} s, then 0.2 s, up to {dispatch.REST_SECONDS_MAX:.0f} s"),
        ("push-workers", f"none came within {dispatch.ACKNOWLEDGED_SECONDS:.0f} s"),
        ("push-workers", f"every {dispatch.CHECK_US / 1e6:.0f} s"),
        ("push-workers", f"after {dispatch.LEASE_US / 1e6:.0f} s without a word"),
        ("streams", f"the newest {streams.ITEMS_MAX:,} items of each execution, or {streams.BYTES_MAX >> 20} MiB"),
        ("streams", f"at most {ITEM_BYTES_MAX >> 10} KiB of JSON"),
        ("streams", f"the newest {streams.FAMILY_MAX:,} are followed"),
        ("streams", f"after {settings.stream_seconds_max / 60:.0f} minutes"),
        ("schedules", f"at most {schedules.WAITING_MAX} wait"),
        ("accounts", f"at least {PASSWORD_CHARACTERS_MIN} characters"),
        ("accounts", f"After {settings.auth_failures_max} wrong passwords"),
        ("understand/failures", f"its lease ({settings.lease_seconds:.0f} s) runs out"),
        ("workflows", f"{THREADS_MAX} at once in a worker"),
        ("workflows", f"clean-up steps for {settings.grace_seconds:.0f} s"),
        ("workflows", f"may call {limits.STEPS_MAX:,} steps"),
    ):
        assert said in " ".join(text_of(page).split()), f"{page}: {said}"
    assert len(webhooks.PAUSES_SECONDS) + 1 == 11 and round(sum(webhooks.PAUSES_SECONDS) / 86_400) == 2


def test_the_page_of_workflows_has_every_option_and_all_of_the_context() -> None:
    """The page needs the user's names of the context only; other names are for the runner."""
    page = text_of("workflows")
    ours = {*ExecutionState.__slots__, "is_active"}
    names = {name for name in dir(Context) if not name.startswith("_")} - ours
    names |= {*inspect.signature(Workflow).parameters} - {"fn"}
    names |= {*ChildOptions.__annotations__, *WaitOptions.__annotations__, *StepChoices.__annotations__}
    assert {name for name in names if not re.search(rf"\b{name}\b", page)} == set()
