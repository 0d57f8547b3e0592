"""Runs and watches the processes of `perdure dev`."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import msgspec
import typer
from rich.text import Text
from watchfiles import PythonFilter, awatch

from perdure.cli.base.commands import FAILED, Refused
from perdure.cli.base.connect import ask
from perdure.cli.base.output import console
from perdure.cli.base.render import PHASE_STYLE, took, value
from perdure.cli.processes.dev_facts import Reader
from perdure.cli.processes.dev_kills import CHAOS_SECONDS, KilledWorker, Kills
from perdure.cli.processes.open_file import open_page
from perdure.sdk.clients.client import Client
from perdure.sdk.clients.credentials import DEFAULT_URL
from perdure.sdk.transports.http import HttpTransport
from perdure.server.process.dev import KilledBy
from perdure.server.process.signals import when_asked_to_stop
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Execution, ListFilters

DEPLOYMENT: Final = "dev"
STORE: Final = os.path.join(".perdure", "perdure.db")
GRACE_SECONDS: Final = 5.0
"""Seconds that a worker's steps may take to end before a reload."""
SETTLE_MS: Final = 100
LOOK_SECONDS: Final = 0.5
LINE_BYTES_MAX: Final = 1 << 20
"""Most bytes of the line that names a worker's workflows."""
CHUNK_BYTES: Final = 65_536
LINES_MAX: Final = 20
KEYS_SECONDS: Final = 0.1
HELD_MAX: Final = 500
SUM_UP_SECONDS: Final = 2.0
KEYS: Final = f"""
  o  open the page in the browser, signed in
  k  kill the worker with SIGKILL; another one takes over
  c  chaos: kill the worker about every {CHAOS_SECONDS:g} s, until c is pressed again
  ?  show these keys
  q  end; Ctrl-C does the same
"""
if sys.platform == "win32":
    APART: Final = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    APART: Final = 0
"""Windows has no sessions. Without this flag, Ctrl-C would end the children."""


class DevSession:
    def __init__(
        self, target: str, folder: str, port: int | None, *, insecure_local: bool, chaos: bool, as_json: bool
    ) -> None:
        self.target = target
        self.folder = folder
        self.port = port
        self.insecure_local = insecure_local
        self.as_json = as_json
        self.url = ""
        self.project_id = ""
        self.key: str | None = None
        self.workflows: list[dict[str, Any]] = []
        self._out = console()
        self._stop = asyncio.Event()
        self._again = asyncio.Event()
        self._worker: asyncio.subprocess.Process | None = None
        self._kills = Kills(self._executions_of, self._say, self._tell_state)
        self._chaos = chaos
        self._ran: list[Any] = []
        self._doing: set[asyncio.Task[None]] = set()
        self._shown = False
        self._server_lost = False
        self._within_line = False
        """The last passed-on output ended within a line."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        when_asked_to_stop(loop, self._stop.set)
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, self._stop.set)
        async with self._server():
            with self._keys(loop):
                tasks = [
                    asyncio.create_task(one)
                    for one in (
                        self._keep_worker(),
                        self._reload(),
                        self._watch_executions(),
                        self._watch_server(),
                        self._answer_server(),
                        self._kills.keep_chaos(),
                    )
                ]
                if self._chaos:
                    self._kills.set_chaos(CHAOS_SECONDS)
                stopping = asyncio.create_task(self._stop.wait())
                try:
                    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self._stop.set()
                    await self._sum_up()
                    await self._end_worker()
                    for task in (stopping, *tasks, *self._doing):
                        task.cancel()
                    await asyncio.gather(stopping, *tasks, *self._doing, return_exceptions=True)
                for task in done:
                    await task  # raises the error of a failed task
        if self._server_lost:
            raise typer.Exit(FAILED)
        self._say("ended", "Ended. The store stays in .perdure; `perdure dev` continues from there.")

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[None]:
        arguments = ["--store", STORE]
        if self.port is not None:
            arguments += ["--port", str(self.port)]
        if self.insecure_local:
            arguments.append("--insecure-local")
        self._server_process = process = await _begin("perdure.cli.processes.dev_server", *arguments)
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if not line:
                raise Refused("The server did not start; see its output above.")
            said = json.loads(line)
            if "error" in said:
                raise Refused(said["error"])
            self.url, self.project_id, self.key = said["url"], said["project_id"], said["api_key"]
            self.worker_key = said["worker_key"]
            yield
        finally:
            await _end(process, GRACE_SECONDS + 20)

    async def _watch_server(self) -> None:
        code = await self._server_process.wait()
        if not self._stop.is_set():
            self._server_lost = True
            self._say(
                "server_ended",
                f"The server has ended (exit code {code}), so the worker ends, too. The store stays in .perdure.",
                exit_code=code,
            )
            self._stop.set()

    async def _keep_worker(self) -> None:
        while not self._stop.is_set():
            self._again.clear()
            environ = {"PYTHONUNBUFFERED": "1"}
            if self.worker_key is not None:
                environ["PERDURE_API_KEY"] = self.worker_key
            arguments = ["work", self.target, "--deployment", DEPLOYMENT, "--url", self.url]
            process = self._worker = await _begin(
                "perdure.cli.main", *arguments, "--grace", str(GRACE_SECONDS), "--child", **environ
            )
            code, _ = await asyncio.gather(process.wait(), self._listen(process))
            self._kills.ended()
            if self._stop.is_set():
                return
            if process is self._kills.killed:
                continue
            if not self._again.is_set():
                self._say(
                    "worker_ended", f"The worker has ended (exit code {code}); it starts again on the next change."
                )
                await self._again.wait()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        stream = process.stdout
        assert stream is not None
        said = None
        while said is None:
            try:
                line = await stream.readuntil()
            except asyncio.IncompleteReadError as end:
                self._pass_on(end.partial)
                return
            except asyncio.LimitOverrunError:  # too long for the worker's line
                self._pass_on(await stream.read(CHUNK_BYTES))
                continue
            said = _as_json(line)
            if said is None or "worker_id" not in said:
                said = None
                self._pass_on(line)
        self.workflows = said["workflows"]
        await self._show()
        names = ", ".join(one["name"] for one in self.workflows)
        self._say("worker", f"Worker {process.pid} serves {names}.", pid=process.pid, workflows=self.workflows)
        self._kills.serves(KilledWorker(said["worker_id"], process))
        facts = Reader(self._hear_fact)
        while chunk := await stream.read(CHUNK_BYTES):
            self._pass_on(facts.rest_of(chunk))
            self._tell_bodies()

    def _hear_fact(self, fact: dict[str, Any]) -> None:
        if "claimed" in fact:
            self._kills.claimed(fact["claimed"])
        if "ran" in fact:
            self._ran.append(fact["ran"])

    def _tell_bodies(self) -> None:
        if self._ran:
            self._tell_server(ran=self._ran)
            self._ran = []

    def _tell_state(self) -> None:
        self._tell_server(state=msgspec.to_builtins(self._kills.status))

    def _tell_server(self, **what: object) -> None:
        process = self._server_process
        if process.returncode is None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(what).encode() + b"\n")

    async def _answer_server(self) -> None:
        """Answers the server, which asks for pages (see `dev_link`)."""
        stream = self._server_process.stdout
        assert stream is not None
        while line := await stream.readline():
            asked = _as_json(line)
            if asked is not None and "ask" in asked:
                self._do(self._answer_asked(asked))
        await self._stop.wait()

    async def _answer_asked(self, asked: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answer": asked["ask"]}
        try:
            if "kill" in asked:
                answer["killed"] = msgspec.to_builtins(await self._kills.kill(KilledBy.PERSON, asked["kill"]))
            else:
                self._kills.set_chaos(asked["chaos"])
        except PerdureError as error:
            answer["problem"] = {"code": error.code, "error": error.message}
        self._tell_server(**answer)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _executions_of(self, worker_id: str) -> list[str]:
        with contextlib.suppress(PerdureError):
            async with self._client() as client:
                found = await client.list(ListFilters(phases=[Phase.RUNNING, Phase.CANCELLING]), limit=HELD_MAX)
                return [one.id for one in found.executions if one.assigned_to_worker == worker_id]
        return []

    async def _sum_up(self) -> None:
        if self._kills.status.kills and not self._server_lost:
            with contextlib.suppress(PerdureError, TimeoutError):
                async with asyncio.timeout(SUM_UP_SECONDS), self._client() as client:
                    said = json.loads(await ask(client, "GET", "/api/v1/dev"))
                    kills, bodies, again = said["kills"], said["bodies"], said["steps_rerun"]
                    self._say(
                        "sum",
                        f"Workers killed: {kills}. Step bodies that ran: {bodies}. Recorded steps that ran again: "
                        f"{again}.",
                        kills=kills,
                        bodies=bodies,
                        steps_rerun=again,
                    )

    def _pass_on(self, printed: bytes) -> None:
        if printed:
            sys.stdout.buffer.write(printed)
            sys.stdout.flush()
            self._within_line = not printed.endswith(b"\n")

    def _begin_line(self) -> None:
        if self._within_line:
            self._pass_on(b"\n")

    async def _end_worker(self) -> None:
        if self._worker is not None:
            await _end(self._worker, GRACE_SECONDS + 5)

    async def _kill_worker(self) -> None:
        if self._worker is None or self._worker.returncode is not None:
            self._again.set()
            return
        try:
            await self._kills.kill(KilledBy.PERSON)
        except PerdureError as error:
            self._say("not_killed", error.message)

    async def _reload(self) -> None:
        ignored = [os.path.join(self.folder, name) for name in (".perdure", ".venv")]
        async for changes in awatch(
            self.folder, watch_filter=PythonFilter(ignore_paths=ignored), step=20, debounce=SETTLE_MS
        ):
            names = sorted({path.removeprefix(self.folder + os.sep) for _, path in changes})
            self._say("reload", f"Changed: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}", files=names)
            self._again.set()
            await self._end_worker()

    async def _show(self) -> None:
        if self._shown:
            return
        self._shown = True
        link = await self._sign_in_link()
        first = self.workflows[0]
        given = json.dumps(first["sample"], ensure_ascii=False)
        curl = ["curl", "-sS", f"{self.url}/api/v1/workflows/{first['name']}/run"]
        if self.key is not None:
            curl += ["-H", f"Authorization: Bearer {self.key}"]
        curl += ["-H", "Content-Type: application/json", "-d", f'{{"payload": {given}}}']
        run = ["perdure", "run", first["name"], "--input", given]
        if self.url != DEFAULT_URL:
            run += ["--url", self.url]
        if self.as_json:
            self._say(
                "ready",
                "",
                url=self.url,
                project_id=self.project_id,
                api_key=self.key,
                page=link,
                curl=_line(curl),
                run=_line(run),
            )
            return
        lines = [
            ("Server", self.url),
            ("Store", STORE),
            ("Project", self.project_id),
            ("Key", self.key or "not needed (--insecure-local)"),
            ("Page", f"{link}   (signs in once)" if self.key is not None else link),
        ]
        self._print()
        for name, text in lines:
            self._print((f"  {name:<8}", "bold"), (text, ""))
        self._print()
        self._print(("  Try, in another terminal", "bold"))
        # Each command has a line to be copied whole.
        self._print((f"\n{_line(run)}\n\n{_line(curl)}\n", ""))
        if sys.stdin.isatty():
            self._print(("  Keys: o opens the page, k kills the worker, ? shows all keys, q ends.\n", ""))

    async def _sign_in_link(self) -> str:
        if self.key is None:
            return f"{self.url}/"
        async with self._client() as client:
            reply = json.loads(await ask(client, "POST", "/api/v1/sign-in-links"))
            return f"{self.url}{reply['path']}"

    def _client(self) -> Client:
        return Client(HttpTransport(self.url, self.key))

    async def _watch_executions(self) -> None:
        seen: dict[str, tuple[str, int]] = {}
        async with self._client() as client:
            first = True
            while True:
                with contextlib.suppress(PerdureError):  # the server is busy or away: look again
                    page = await client.list(limit=100)
                    lines = []
                    found = [one.raw for one in page.executions]
                    for one in reversed(found):
                        now = (one.phase.value, one.attempt)
                        before = seen.get(one.id)
                        if before != now and not (first and one.completed_at_us is not None):
                            lines.append(one)
                        seen[one.id] = now
                    for one in lines[-LINES_MAX:]:
                        self._say_execution(one)
                    first = False
                    seen = {one.id: seen[one.id] for one in found}
                await asyncio.sleep(LOOK_SECONDS)

    def _say_execution(self, one: Execution) -> None:
        if self.as_json:
            self._say(
                "execution", "", id=one.id, workflow_id=one.workflow_id, phase=one.phase.value, attempt=one.attempt
            )
            return
        says = one.error or (value(one.result, 80) if one.phase is Phase.COMPLETED else "")
        took_ = took(one.started_at_us, one.completed_at_us)
        self._print(
            (f"  {one.phase.value:<11}", PHASE_STYLE[one.phase]),
            (f" {one.workflow_id} {one.id} {took_ + ' ' if took_ else ''}{says}", ""),
        )

    def _print(self, *parts: tuple[str, str]) -> None:
        self._begin_line()
        self._out.print(Text.assemble(*parts), soft_wrap=True)

    def _say(self, event: str, text: str, **values: object) -> None:
        if self.as_json:
            self._begin_line()
            typer.echo(json.dumps({"event": event, **values}, ensure_ascii=False))
            sys.stdout.flush()
        elif text:
            self._print((f"  {text}", ""))

    @contextmanager
    def _keys(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        if not sys.stdin.isatty():
            yield
            return
        if sys.platform == "win32":  # event loops on Windows cannot wait for a console
            looking = loop.create_task(self._look_for_keys())
            try:
                yield
            finally:
                looking.cancel()
            return
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        tty.setcbreak(terminal)
        loop.add_reader(terminal, self._key_pressed, terminal)
        try:
            yield
        finally:
            loop.remove_reader(terminal)
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def _key_pressed(self, terminal: int) -> None:
        try:
            keys = os.read(terminal, 64)
        except OSError:
            keys = b""
        if not keys:
            self._stop.set()
        for key in keys.decode("utf-8", "replace"):
            self._obey(key)

    if sys.platform == "win32":

        async def _look_for_keys(self) -> None:
            import msvcrt

            while True:
                while msvcrt.kbhit():
                    key = msvcrt.getwch()
                    if key in "\0\xe0":  # an arrow or function key: a number follows
                        msvcrt.getwch()
                    else:
                        self._obey(key)
                await asyncio.sleep(KEYS_SECONDS)

    def _obey(self, key: str) -> None:
        if key in "kK":
            self._do(self._kill_worker())
        elif key in "oO":
            self._do(self._open_page())
        elif key in "cC":
            self._kills.set_chaos(CHAOS_SECONDS if self._kills.status.chaos_seconds is None else None)
        elif key == "?":
            self._print((KEYS, ""))
        elif key in "qQ":
            self._stop.set()

    async def _open_page(self) -> None:
        try:
            link = await self._sign_in_link()
        except PerdureError as error:
            self._say("not_opened", error.message)
            return
        if not await asyncio.to_thread(open_page, link):
            self._say("page", f"This terminal has no browser. Open {link}", page=link)


def _line(arguments: list[str]) -> str:
    return subprocess.list2cmdline(arguments) if sys.platform == "win32" else shlex.join(arguments)


async def _begin(module: str, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        creationflags=APART,
        env={**os.environ, **environ},
        limit=LINE_BYTES_MAX,
    )


async def _end(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Closes standard input as a request to end (see `end_with_parent`): Windows has no such signal. Kills the process
    after `seconds`."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _as_json(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
