"""The command as users run the command: real processes, a separate home, a free port."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
from tests.ports import free_port
from typer.testing import CliRunner

from perdure.cli.main import app

PERDURE = [sys.executable, "-m", "perdure.cli.main"]
SECONDS = 60.0
MAKE_KEY = ("keys", "create", "test", "--role", "admin", "--database", "perdure.db")

APP = """
import asyncio
import os
from dataclasses import dataclass

from msgspec import Raw
from perdure import Budget, Context, Fatal, Registry, current_step, step
from perdure.sdk.budgets import admitted, reserve

registry = Registry()


@dataclass
class Plain:
    approved: bool


@step
async def body(number: int) -> int:
    with open(os.environ["SIDE_FILE"], "a") as side:
        side.write(f"{number}\\n")
    while os.path.exists(f"hold {number}"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return number * 2


@registry.workflow
async def double(ctx: Context, numbers: list[int]) -> list[int]:
    ctx.log("doubling %d numbers", len(numbers))
    found = []
    for done, number in enumerate(numbers, 1):
        found.append(await body(number))
        ctx.progress(done, len(numbers))
        ctx.emit("doubled", number)
    return found


@registry.workflow
async def refunded(ctx: Context) -> str:
    async def ship() -> str:
        raise ValueError("no van")

    async def refund() -> None: ...

    try:
        return await ctx.step("ship", ship)
    except Exception:
        await ctx.step("refund", refund)
        raise


@step
async def unlucky() -> None:
    raise ValueError("no luck yet")


@registry.workflow
async def second_luck(ctx: Context) -> str:
    try:
        await unlucky()
    except Exception:
        return "luck"
    return "none"


@registry.workflow
async def changes(ctx: Context, order: int) -> int:
    found = await body(order)
    await ctx.wait_for_event("go")
    return found


@registry.workflow
async def fails(ctx: Context) -> None:
    raise Fatal("no such luck")


@registry.workflow
async def asks(ctx: Context) -> object:
    return await ctx.suspend("approve", {"amount": 120})


@registry.workflow
async def asks_plainly(ctx: Context) -> object:
    return await ctx.suspend("approve", {"amount": 120}, answer_type=Plain)


@registry.workflow
async def hands_over(ctx: Context) -> object:
    return await ctx.run_child(asks)


@registry.workflow
async def naps(ctx: Context) -> None:
    await ctx.sleep(7_200)


async def spend() -> None:
    reservation = await reserve(usd_micros=5_000, budget=Budget(usd=2, calls=1))
    await reservation.settle(usd_micros=4_000)


@registry.workflow
async def spends(ctx: Context) -> None:
    for _ in range(2):
        await admitted(ctx, lambda: ctx.step("spend", spend))


@registry.workflow
async def runs_out(ctx: Context, question: str) -> str:
    # Ends as agents do when their budget is used up.
    ctx.pending_progress[:] = [Raw(b'{"stopped":"budget","text":"ended early (budget): The budget is used up."}')]
    return "let me see"


def said(text: str) -> dict[str, object]:
    return {"delta": {"part_delta_kind": "text", "content_delta": text}}


@registry.workflow
async def waiter(ctx: Context, order: str) -> str:
    # Speaks as agents do.
    async def model() -> None:
        for part in ("One ", order, ", coming."):
            current_step().emit("part_delta", said(part))

    await ctx.step("model:1", model)
    call = {"tool_name": "charge", "args": '{"euros": 3}'}
    ctx.emit("function_tool_call", {"part": call})
    form = {"title": "Allow charge?", "fields": [{"key": "approved"}, {"key": "arguments"}]}
    asked = {"tool": "charge", "arguments": {"euros": 3}, "_form": form}
    answer = await ctx.suspend("approve_charge_1", asked)
    ctx.emit("function_tool_result", {"part": {"tool_name": "charge", "content": answer}})
    return "Enjoy!"


@registry.workflow
async def listens(ctx: Context) -> object:
    return (await ctx.wait_for_event("orders", match={"id": 7})).data
"""


class House:
    """A folder with an application, a home, and the environment in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shop"
        self.home = folder / "home"
        self.folder.mkdir()
        self.home.mkdir()
        self.side_file = folder / "side"
        self.side_file.touch()
        (self.folder / "app.py").write_text(APP)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        self.env |= {
            "HOME": str(self.home),
            "SIDE_FILE": str(self.side_file),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # a reload must not read what an earlier second compiled
        }

    def run(
        self, *arguments: str, code: int | None = 0, input: str | None = None, apart: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to the end and check the exit code. A command that changes its process gets its own, as do
        commands `apart`; other commands run here, because starting Python takes longer than the whole command."""
        if apart or arguments[0] in ("serve", "work", "dev", "open"):
            done = subprocess.run(
                [*PERDURE, *arguments],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                input=input,
            )
        else:
            done = self._run_here(arguments, input)
        assert code is None or done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        assert "perdure/cli/" not in done.stderr, done.stderr
        # Only a run that failed (1) shows a traceback: the workflow's.
        assert code == 1 or "Traceback" not in done.stderr, done.stderr
        return done

    def _run_here(self, arguments: Sequence[str], input: str | None) -> subprocess.CompletedProcess[str]:
        environ: dict[str, str | None] = {name: None for name in os.environ if name not in self.env}
        environ.update(self.env)
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(app, list(arguments), input=input, env=environ)
        finally:
            os.chdir(before)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json and read the printed line."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def lines(self, *arguments: str) -> list[Any]:
        """Run a command with --json and read all printed lines."""
        return [json.loads(line) for line in self.run(*arguments, "--json").stdout.splitlines()]

    def waiting(self, *arguments: str) -> str:
        """Start an execution. Returns the id once the execution waits."""
        id = self.run("run", *arguments, "--detach").stdout.strip()
        until_true(lambda: self.json("show", id)["execution"]["phase"] == "waiting")
        return id

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command without waiting for the end."""
        return subprocess.Popen([*PERDURE, *arguments], cwd=self.folder, env=self.env, text=True, **options)

    @contextmanager
    def holding(self, number: int) -> Iterator[None]:
        """Keep the step body with the given number from ending within the block."""
        hold = self.folder / f"hold {number}"
        hold.touch()
        yield
        hold.unlink()

    def until_body(self, number: int) -> None:
        until_true(lambda: self.bodies()[-1:] == [number])

    def bodies(self) -> list[int]:
        """Numbers of the step bodies that ran, in order."""
        return [int(line) for line in self.side_file.read_text().split()]


@contextmanager
def serving(house: House, *arguments: str) -> Iterator[str]:
    """`perdure serve` on a free port with a key in the environment, for the length of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    house.env["PERDURE_URL"] = url
    if "PERDURE_API_KEY" not in house.env:
        house.env["PERDURE_API_KEY"] = house.run(*MAKE_KEY).stdout.strip()
    process = house.start("serve", "--port", str(port), *arguments)
    try:
        until_true(lambda: is_ready(url), process)
        yield url
    finally:
        end(process)


@contextmanager
def working(house: House, *arguments: str, app: str = "app.py") -> Iterator[subprocess.Popen[str]]:
    """`perdure work` for the length of the block; registered when the block begins."""
    process = house.start("work", app, *arguments, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said: list[str] = []
    serves = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "Serving deployment" in line:
                serves.set()
        serves.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert serves.wait(SECONDS) and process.poll() is None, "".join(said)
        yield process
    finally:
        end(process)
        reader.join()
        process.stderr.close()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """Ask a process to end, and wait for the end."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def ask_server(house: House, method: str, path: str, body: Any = None) -> Any:
    """A request of another program, with the key of the house."""
    headers = {"authorization": f"Bearer {house.env['PERDURE_API_KEY']}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(house.env["PERDURE_URL"] + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:
        return json.load(reply)


def until_true(check: Any, process: subprocess.Popen[str] | None = None) -> None:
    """Poll until `check` holds: the other process sends no signal."""
    until = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < until, "it did not become true"
        assert process is None or process.poll() is None, f"the process has ended with {process.returncode}"
        time.sleep(0.02)


class Terminal:
    """A command at a terminal: the screen, and keys to press. A `with` block ends the command at the end."""

    def __init__(self, house: House, *arguments: str) -> None:
        self.master, terminal = pty.openpty()
        # A suite that runs in the background may have been told to ignore Ctrl-C, and what it starts would, too.
        ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [*PERDURE, *arguments],
            cwd=house.folder,
            env={**house.env, "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, ignored)
        os.close(terminal)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:  # the test has failed before it was closed
            self.process.kill()
            self.close()

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def expect(self, text: str) -> str:
        """Read until the screen has shown `text`. Returns and forgets everything shown before."""
        until = time.monotonic() + SECONDS
        while text not in self.shown:
            left = until - time.monotonic()
            assert left > 0 and self._read(left), f"{text!r} was never shown:\n{self.shown}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def expect_all(self, sign: str, amount: int) -> None:
        """Read until the screen has shown a sign so often, whatever else came in between; forgets what was shown up to
        the last of them."""
        until = time.monotonic() + SECONDS
        while (found := self.shown.count(sign)) < amount:
            left = until - time.monotonic()
            assert left > 0 and self._read(left), f"{sign!r} was shown {found} times of {amount}."
        assert found == amount
        _, _, self.shown = self.shown.rpartition(sign)

    def _read(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.master], [], [], seconds)
        if not readable:
            return False
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # the other end is closed
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def reads_keys(self) -> bool:
        """Whether the process waits for a key. Some systems only tell whether a process waits, not for what."""
        try:
            waits_in = Path(f"/proc/{self.process.pid}/wchan").read_text()
        except OSError:
            waits_in = ""
        if sys.platform == "darwin":  # of every process there psutil says that it runs
            said = subprocess.run(["ps", "-o", "stat=", "-p", str(self.process.pid)], capture_output=True, text=True)
            return said.stdout[:1] in ("S", "I")
        if waits_in in ("", "0"):
            return psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING
        return "poll" in waits_in or "select" in waits_in

    def close(self) -> int:
        """Wait for the end and give the exit code."""
        until = time.monotonic() + SECONDS
        while self.process.poll() is None and time.monotonic() < until:
            self._read(0.05)
        if self.process.poll() is None:
            self.process.kill()
        os.close(self.master)
        return self.process.wait()
