"""Follows each page of Learn like a reader: programs, commands, keys, and output."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import learn
from tests.cli.processes import SECONDS, House, Terminal, serving, until_true, working

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")

INSTALLS = {"python3 -m venv .venv", ". .venv/bin/activate"}
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Reader:
    """A reader of a page. The reader takes the blocks in order; `is_through` says whether a block was left."""

    def __init__(self, page: str, house: House) -> None:
        self._blocks = learn.blocks(page)
        self._page = page
        self._house = house
        self._id = self._step = ""
        self.shown = ""
        house.env["PYTHONPATH"] = str(house.folder)
        if (before := learn.PAGES.index(page)) > 0:
            self._write(learn.files(learn.PAGES[before - 1]))

    @property
    def is_through(self) -> bool:
        return not self._blocks

    def saves(self) -> None:
        """Write the program as the page leaves the program."""
        self._next("python")
        self._write(learn.files(self._page))

    def types(self) -> None:
        """Run the next commands; a command that fails, fails the test."""
        self.shown = ""
        for command in self.commands():
            self._run(command)

    def types_until_it_sees(self, sign: str) -> None:
        """Run the next commands. The last command, a list, is repeated until the list has an entry."""
        *first, again = self.commands()
        self.shown = ""
        for command in first:
            self._run(command)

        def has_entry() -> bool:
            self.shown = ""
            self._run(again)
            return sign in self.shown

        until_true(has_entry)

    def begins(self) -> subprocess.Popen[str]:
        [command] = self.commands()
        return self._house.start(*command, stdout=subprocess.PIPE)

    def commands(self) -> list[list[str]]:
        """The arguments of the next block's commands of ours, with the id and the step that a reader copies."""
        found = []
        for line in self._next("sh").splitlines():
            if line.startswith("perdure "):
                line = line.partition("  #")[0]
                words = re.findall(r"'[^']*'|\S+", line)[1:]
                copied = {"ID": self._id, "STEP": self._step}
                found.append([copied.get(word, word.strip("'")) for word in words])
            else:
                assert line in INSTALLS or line.startswith(
                    ("pip install ", "cat ", "echo ", "export ", "python -m pytest ")
                ), line
        return found

    def sees(self, shown: str | None = None) -> None:
        """The next block of output, line by line, is in what was shown last."""
        said = self.shown if shown is None else shown
        for line in self._next("text").splitlines():
            assert line in said, f"{line!r} is not in {said!r}"

    def sees_at(self, terminal: Terminal) -> None:
        for line in self._next("text").splitlines():
            terminal.expect(line)

    def _next(self, language: str) -> str:
        block = self._blocks.pop(0)
        assert block.language == language, block
        return block.text

    def _write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self._house.folder / name).write_text(text)

    def _run(self, command: list[str]) -> None:
        done = self._house.run(*command)
        self.shown += done.stdout + done.stderr
        for row in done.stdout.splitlines():
            if (found := ID.match(row)) is not None:
                self._id = found[0]
                self._step = next(iter(row[found.end() :].split()), "")


def test_the_program_of_all_pages_is_formatted(tmp_path: Path) -> None:
    for name, text in learn.files("production").items():
        (tmp_path / name).write_text(text)
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--check", str(tmp_path)]
    assert subprocess.run(ruff, capture_output=True).returncode == 0


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def developing(house: House) -> Iterator[Terminal]:
    with Terminal(house, "dev", "shop.py", "--port", "0") as terminal:
        terminal.expect("serves")
        yield terminal
        terminal.press("q")
        assert terminal.close() == 0


@pytest.fixture
def reader(request: pytest.FixtureRequest, house: House) -> Reader:
    return Reader(request.function.__name__.removeprefix("test_"), house)


def test_step(reader: Reader, house: House) -> None:
    reader.saves()
    assert reader.commands() == []
    assert reader.commands() == [["dev", "shop.py"]]
    for _ in developing(house):
        reader.types()
        reader.sees()
    assert reader.is_through


@pytest.mark.slow
def test_crash(reader: Reader, house: House) -> None:
    charges = house.folder / "charges.txt"
    charges.write_text("order 7: 42 euros\n")
    reader.saves()
    program, killed = house.folder / "shop.py", house.folder / "killed"
    before, packs, after = program.read_text().partition("    await asyncio.sleep(PACK_SECONDS)\n")
    assert packs
    holds = "    while item == 'plate' and not os.path.exists('killed'):\n        await asyncio.sleep(0.02)\n"
    program.write_text(f"import os\n{before}{holds}{after}")  # it packs until it was killed, however late that is
    for terminal in developing(house):
        run = reader.begins()
        until_true(lambda: "order 8" in charges.read_text())
        terminal.expect("running")
        until_true(lambda: "pack" in journal(house))
        terminal.press("k")
        reader.sees_at(terminal)
        killed.touch()
        reader.sees(run.communicate(timeout=SECONDS)[0])
        assert reader.commands() == []
        reader.sees(charges.read_text())
    assert reader.is_through


def journal(house: House) -> str:
    [id] = [row["id"] for row in house.lines("ls")]
    return house.run("show", id).stdout


@pytest.mark.slow
def test_wait(reader: Reader, house: House) -> None:
    reader.saves()
    for _ in developing(house):
        reader.types()
        until_true(lambda: "scans" in journal(house))
        reader.types()
        reader.sees()
    assert reader.commands() == [["dev", "shop.py"]]
    for _ in developing(house):
        reader.types()
        reader.sees()
    assert reader.is_through


@pytest.mark.slow
def test_approval(reader: Reader, house: House) -> None:
    reader.saves()
    for _ in developing(house):
        reader.types_until_it_sees("approve_total")
        reader.sees()
        reader.types()
        reader.types()
        reader.sees()
    assert reader.is_through


@pytest.mark.slow
def test_children(reader: Reader, house: House) -> None:
    reader.saves()
    for _ in developing(house):
        reader.types()
        [queue] = [row for row in house.lines("queues") if row["name"] == "packing"]
        assert queue["total_limit"] == 2
        reader.types()
        reader.sees()
        assert len(house.lines("ls", "--workflow", "pack_item")) == 6
    assert reader.is_through


@pytest.mark.slow
def test_schedule(reader: Reader, house: House) -> None:
    (house.folder / "charges.txt").write_text("order 7: 42 euros\norder 8: 58 euros\n")
    reader.saves()
    for _ in developing(house):
        reader.types()
        reader.sees()
        reader.types_until_it_sees("completed")
        reader.sees()
        assert [row["result"] for row in house.lines("ls", "--workflow", "report")] == ["2 orders charged"]
    assert reader.is_through


@pytest.mark.slow
def test_agent(reader: Reader, house: House) -> None:
    (house.folder / "charges.txt").write_text("order 7: 42 euros\n")
    reader.saves()
    assert reader.commands() == []
    for _ in developing(house):
        reader.types_until_it_sees("approve_refund")
        reader.types()
        reader.sees()
    assert reader.is_through


@pytest.mark.slow
def test_production(reader: Reader, house: House) -> None:
    reader.saves()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"]
    assert reader.commands() == []
    reader.sees(subprocess.run(command, cwd=house.folder, env=house.env, capture_output=True, text=True).stdout)
    make_key, serve = reader.commands()
    assert serve == ["serve"]
    workers_key = house.run(*make_key).stdout.strip()
    with serving(house):
        [served] = reader.commands()
        mine, house.env["PERDURE_API_KEY"] = house.env["PERDURE_API_KEY"], workers_key
        with working(house, *served[2:], app=served[1]):
            house.env["PERDURE_API_KEY"] = mine
            reader.types()
            assert (house.folder / "copy.db").exists()
            reader.types()
            reader.sees()
    assert reader.is_through
