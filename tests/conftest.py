"""What every test shares."""

import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests import databases
from tests.ports import free_port

from perdure.server.process.signals import raise_file_limit

raise_file_limit()  # macOS lets a process have 256 files and connections open, until it asks for more

# A shell has SIGINT ignored in what it starts in the background, and its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine, not of the code.
settings.register_profile("perdure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perdure")


CRASHING = {"crashed", "crash_everywhere"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay to the end. Looking for garbage among them takes a fifth of the time of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that crashes at each commit opens some 50 engines in turn, and limits each run by itself."""
    for item in items:
        code = getattr(getattr(item, "function", None), "__code__", None)
        if code is not None and CRASHING & {*code.co_names}:
            item.add_marker(pytest.mark.timeout(3_600))


@pytest.fixture(params=databases.KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of an empty store; whoever takes it runs on each kind of database."""
    async with databases.lent(request.param, tmp_path) as address:
        yield address


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what is in no cycle is forgotten, and no collection walks all of pytest."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def unused_tcp_port() -> int:
    """A plugin's fixture of the same name gives a port that another process may have by now."""
    return free_port()


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line under the results: a finding of a test that passes."""

    def note(text: str) -> None:
        request.node.user_properties.append(("said", text))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Findings of tests, sorted: tests end in any order."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    said = sorted({text for report in reports for name, text in report.user_properties if name == "said"})
    if said:
        terminalreporter.section("what tests have found out")
        for text in said:
            terminalreporter.write_line(text)


def pytest_sessionfinish() -> None:
    """End the process's PostgreSQL, if a test started the server."""
    launcher = sys.modules.get("tests.postgres")
    if launcher is not None:
        launcher.close()
