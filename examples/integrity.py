"""The main demo: verify every Python package on this machine, and lose nothing when a worker is killed.

One child execution per installed distribution hashes the files that its RECORD names and compares them with the
recorded digests, in retried steps; the root waits for all of them and sums up. Three processes: a server, a worker,
and this one, which starts the root, shows how far it is, kills the worker with SIGKILL half-way and starts another
one.

    make demo

Every step's body appends a line to a side file, so what ran can be counted without asking Perdure.
"""

import argparse
import asyncio
import base64
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from perdure import Client, Context, Queue, RetryPolicy, current_step, step, workflow
from perdure.cli.base.connect import ask
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import ListFilters, Row

FILES_PER_STEP = 100
OPEN_CHILDREN = 12
RETRY = RetryPolicy(max_attempts=3, initial_seconds=0.2)
SIDE_FILE = "PERDURE_DEMO_SIDE_FILE"
NULL_BY_RIGHT = {"error", "cancelled_at", "cancelled_by"}
CONTRACT = (
    "id",
    "workflow_id",
    "status",
    "payload",
    "result",
    "error",
    "created_at",
    "started_at",
    "completed_at",
    "deployment_id",
    "assigned_to_worker",
    "parent_execution_id",
    "root_execution_id",
    "retry_count",
    "step_key",
    "queue_name",
    "concurrency_key",
    "batch_id",
    "session_id",
    "user_id",
    "output_schema_name",
    "cancelled_at",
    "cancelled_by",
    "run_timeout_seconds",
)

# --- the workflows
# -----------------------------------------------------------------------------------------------------

# At most so many packages of one interpreter at once, and of all together.
packages_queue = Queue("packages", concurrency_limit=8, total_limit=OPEN_CHILDREN)


@dataclass
class Package:
    """One installed distribution: its dist-info folder and the interpreter that knows it."""

    name: str
    version: str
    record: str
    interpreter: str


@dataclass
class Report:
    """What the verification of one package, or of all together, found."""

    packages: int
    without_record: int
    files: int
    bytes: int
    mismatches: list[str]
    without_digest: int


@dataclass
class Entry:
    """A file that a RECORD names, and the digest it should have."""

    path: str
    algorithm: str
    digest: str


@dataclass
class Listing:
    """The files of one package."""

    entries: list[Entry]
    without_digest: int
    has_record: bool = True


@step(retry=RETRY)
async def find_packages() -> list[Package]:
    """Every distribution that this Python and the system's Pythons know, each folder once."""
    note()
    return await asyncio.to_thread(all_packages)


@step(retry=RETRY)
async def read_record(record: str) -> Listing:
    """The files that a RECORD names; those without a digest (the RECORD itself, bytecode) are only counted, and so are
    packages without a RECORD (the system's own, most often)."""
    note()
    return await asyncio.to_thread(parse_record, Path(record))


@step(retry=RETRY, timeout=60)
async def verify_files(entries: list[Entry]) -> tuple[int, list[str]]:
    """Hash some files: how many bytes, and which do not match."""
    note()
    return await asyncio.to_thread(hash_files, entries)


@workflow(queue=packages_queue, run_timeout_seconds=600)
async def verify_package(ctx: Context, package: Package) -> Report:
    """One distribution, a hundred files a step."""
    listing = await read_record(package.record)
    size = 0
    mismatches: list[str] = []
    for first in range(0, len(listing.entries), FILES_PER_STEP):
        done, wrong = await verify_files(listing.entries[first : first + FILES_PER_STEP])
        size += done
        mismatches += wrong
    return Report(1, int(not listing.has_record), len(listing.entries), size, mismatches, listing.without_digest)


@workflow
async def verify_machine(ctx: Context) -> Report:
    """All distributions, a child for each."""
    packages = await find_packages()
    ctx.progress(0, len(packages), "packages")
    done = await ctx.map_children(
        verify_package, packages, limit=OPEN_CHILDREN, concurrency_key=lambda package: package.interpreter
    )
    total = Report(0, 0, 0, 0, [], 0)
    for report in done.results():
        total.packages += 1
        total.without_record += report.without_record
        total.files += report.files
        total.bytes += report.bytes
        total.mismatches += report.mismatches
        total.without_digest += report.without_digest
    return total


# --- what the steps do
# -------------------------------------------------------------------------------------------------


def note() -> None:
    """Append to the side file that this step's body began: one write, which no kill can tear."""
    info = current_step()
    attempt = 0 if info.context is None else info.context.attempt
    line = f"{info.execution_id}\t{info.key}\t{attempt}\n".encode()
    with open(os.environ[SIDE_FILE], "ab", buffering=0) as side:
        side.write(line)


def interpreters() -> list[str]:
    """This Python, the system's, and the one that a shell finds: on macOS python.org's or Homebrew's."""
    system = [f"/usr/bin/python3{minor}" for minor in ("", ".11", ".12", ".13")]
    candidates = [sys.executable, *system, shutil.which("python3") or sys.executable]
    found: dict[str, str] = {}
    for path in candidates:
        if os.path.exists(path):
            # A virtual environment's Python is a link to another one's, with packages of its own.
            found.setdefault(path if path == sys.executable else os.path.realpath(path), path)
    return list(found.values())


def all_packages() -> list[Package]:
    """The distributions of all interpreters; one that two of them share counts once."""
    found: dict[str, Package] = {}
    for interpreter in interpreters():
        for package in packages_of(interpreter):
            found.setdefault(os.path.realpath(package.record), package)
    return sorted(found.values(), key=lambda package: (package.name.lower(), package.record))


LIST_PACKAGES = """
import importlib.metadata, json, os
found = []
for distribution in importlib.metadata.distributions():
    folder = getattr(distribution, "_path", None)
    record = os.path.join(str(folder), "RECORD") if folder is not None else ""
    if record:
        found.append([distribution.metadata["Name"] or "?", distribution.version or "?", record])
print(json.dumps(found))
"""


def packages_of(interpreter: str) -> list[Package]:
    """The distributions that one interpreter's importlib.metadata finds; none for another one that does not run, or
    is too old to tell."""
    done = subprocess.run([interpreter, "-c", LIST_PACKAGES], capture_output=True, timeout=60)
    if done.returncode and interpreter != sys.executable:
        return []
    done.check_returncode()
    return [Package(name, version, record, interpreter) for name, version, record in json.loads(done.stdout)]


def parse_record(record: Path) -> Listing:
    """The rows of a RECORD file."""
    if not record.is_file():
        return Listing([], 0, has_record=False)
    base = record.parent.parent
    entries: list[Entry] = []
    without_digest = 0
    with record.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            if len(row) < 2 or not row[1]:
                without_digest += 1
                continue
            algorithm, _, digest = row[1].partition("=")
            entries.append(Entry(os.path.normpath(base / row[0]), algorithm, digest))
    return Listing(entries, without_digest)


def hash_files(entries: list[Entry]) -> tuple[int, list[str]]:
    """Hash each file and compare."""
    size = 0
    wrong: list[str] = []
    for entry in entries:
        try:
            data = Path(entry.path).read_bytes()
        except OSError:
            wrong.append(entry.path)
            continue
        size += len(data)
        digest = base64.urlsafe_b64encode(hashlib.new(entry.algorithm, data).digest()).rstrip(b"=").decode()
        if digest != entry.digest.rstrip("="):
            wrong.append(entry.path)
    return size, wrong


# --- the three processes
# -----------------------------------------------------------------------------------------------


def start_process(what: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A server or a worker, as a process of its own."""
    environment = {**os.environ, SIDE_FILE: str(folder / "side.tsv")}
    log = (folder / f"{what}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, __file__, f"--{what}", str(folder), *arguments], env=environment, stdout=log, stderr=log
    )


async def serve(folder: Path) -> None:
    """The server process: a store in the folder, a free port, a key for the others."""
    from perdure.server.app import Server
    from perdure.server.app import serve as serve_until_stopped
    from perdure.server.process.settings import Settings
    from perdure.wire.base.access import Role

    async def ready(server: Server) -> None:
        engine = server.application.engine
        project_id = await engine.projects.default()
        key = await engine.projects.create_key(project_id, "demo", Role.ADMIN, development=True)
        written = folder / "access.tmp"
        written.write_text(json.dumps({"url": server.url, "key": key}))
        written.rename(folder / "access.json")

    await serve_until_stopped(Settings(store=str(folder / "perdure.db"), port=0), on_ready=ready)


async def work(folder: Path) -> None:
    """A worker process: it runs until it gets SIGTERM, or SIGKILL."""
    from perdure import Registry
    from perdure.sdk.transports.http import HttpTransport
    from perdure.sdk.workers.lease import HttpLease
    from perdure.sdk.workers.worker import Worker

    access = json.loads((folder / "access.json").read_text())
    worker = Worker(
        HttpTransport([access["url"]], access["key"]),
        Registry(verify_machine, verify_package),
        lease=HttpLease([access["url"]], access["key"]),
    )
    await worker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await worker.drain()


async def until_exists(path: Path, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Wait for a file that another process writes."""
    until = time.monotonic() + seconds
    while not await asyncio.to_thread(path.exists):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"The server did not start; its log is {path.parent / 'serve.log'}.")
        await asyncio.sleep(0.05)


# --- what is shown
# -----------------------------------------------------------------------------------------------------


async def demo(folder: Path, console: Console) -> bool:
    """Run it; True when every promise was kept."""
    console.print("Starting a server and a worker …")
    processes = [start_process("serve", folder)]
    try:
        await until_exists(folder / "access.json", processes[0])
        access = json.loads((folder / "access.json").read_text())
        worker = start_process("work", folder)
        processes.append(worker)
        client = Client.connect(access["url"], access["key"])
        try:
            link = json.loads(await ask(client, "POST", "/api/v1/sign-in-links"))["path"]
            console.print(f"The dashboard, while this runs: {access['url']}{link}", soft_wrap=True)
            return await run(client, access, folder, worker, processes, console)
        finally:
            await client.close()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


async def run(
    client: Client,
    access: dict[str, str],
    folder: Path,
    worker: subprocess.Popen[bytes],
    processes: list[subprocess.Popen[bytes]],
    console: Console,
) -> bool:
    """Start the root, watch it, kill the worker half-way, and look at what is left."""
    began = time.monotonic()
    handle = await client.start(
        verify_machine, None, key=f"demo-{os.getpid()}", session_id="demo", user_id=os.environ.get("USER", "you")
    )
    killed = False
    ended = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("finding packages", total=None)
        total = 0
        async for row in client.watch(handle.id):
            if row.kind is Kind.STEP and not total:
                total = len(msgspec.json.decode(row.value))
                bar.update(shown, total=total, description="verifying packages")
            ended += row.kind is Kind.CHILD
            bar.update(shown, completed=ended)
            if not killed and total and ended >= total // 2:
                killed = True
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                bar.console.print(
                    f"[bold red]✗ killed the worker[/] (pid {worker.pid}, SIGKILL) after {ended} packages"
                )
                another = start_process("work", folder)
                processes.append(another)
                bar.console.print(f"[bold green]✓ started another[/] (pid {another.pid})")
    result = await handle.result()
    seconds = time.monotonic() - began
    children = await all_children(client, handle.id)
    journals = {id: list(await whole_journal(client, id)) for id in [handle.id, *children]}
    kept = show(console, result, journals, folder, seconds)
    return await asyncio.to_thread(check_record, access, children[-1], console) and kept


async def all_children(client: Client, root: str) -> list[str]:
    """The ids of the root's children."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.list(ListFilters(root_execution_id=root), cursor=cursor, limit=500)
        found += [execution.id for execution in page.executions]
        cursor = page.next_cursor
        if cursor is None or not page.executions:
            return found


async def whole_journal(client: Client, id: str) -> list[Row]:
    """All rows of an execution."""
    rows: list[Row] = []
    while page := await client.journal(id, after=rows[-1].seq if rows else 0):
        rows += page
    return rows


def show(console: Console, result: Report, journals: dict[str, list[Row]], folder: Path, seconds: float) -> bool:
    """The table, and whether it says what was promised."""
    runs = [line.split("\t") for line in (folder / "side.tsv").read_text().splitlines()]
    begun = Counter((id, key) for id, key, _ in runs)
    recorded_by = {
        (id, str(row.key)): row.attempt for id, rows in journals.items() for row in rows if row.kind is Kind.STEP
    }
    # A body that an attempt began after an earlier one had recorded its outcome: must never be.
    again = [(id, key) for id, key, attempt in runs if int(attempt) > recorded_by.get((id, key), 1 << 30)]
    recovered = replayed = 0
    for rows in journals.values():
        lost = [row.seq for row in rows if row.kind is Kind.LOST]
        recovered += bool(lost)
        if lost:
            replayed += sum(row.kind is Kind.STEP and row.seq < lost[-1] for row in rows)
    table = Table(title=f"Integrity of the Python packages on this machine ({seconds:.1f} s)", show_header=False)
    for name, value in (
        ("packages", f"{result.packages:,}"),
        ("  of these, without a RECORD", f"{result.without_record:,}"),
        ("files verified", f"{result.files:,}"),
        ("bytes hashed", f"{result.bytes:,}"),
        ("files without a digest", f"{result.without_digest:,}"),
        ("mismatches", f"{len(result.mismatches):,}"),
        ("executions recovered from the killed worker", f"{recovered:,}"),
        ("steps recorded", f"{len(recorded_by):,}"),
        ("step bodies run (side file)", f"{sum(begun.values()):,}"),
        ("  of these, in flight at the kill and run again", f"{sum(begun.values()) - len(begun):,}"),
        ("recorded steps replayed instead of run", f"{replayed:,}"),
        ("recorded steps that ran again", f"[bold]{len(again)}[/]"),
        ("steps lost", f"[bold]{len(recorded_by) - len(begun.keys() & recorded_by.keys())}[/]"),
    ):
        table.add_row(name, value)
    console.print(table)
    for path in result.mismatches[:5]:
        console.print(f"  [yellow]differs from its RECORD:[/] {path}", soft_wrap=True)
    if len(result.mismatches) > 5:
        console.print(f"  … and {len(result.mismatches) - 5} more")
    kept = not again and begun.keys() >= recorded_by.keys() and recovered > 0
    console.print(
        "[bold green]✓ Nothing was lost, and no recorded step ran again.[/]"
        if kept
        else "[bold red]A promise was broken.[/]"
    )
    return kept


def check_record(access: dict[str, str], child: str, console: Console) -> bool:
    """Get one child from the API; True when every field of the contract is alive."""
    path = f"/api/v1/executions/{child}"
    request = urllib.request.Request(access["url"] + path, headers={"Authorization": f"Bearer {access['key']}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        record = json.load(reply)
    dead = [name for name in CONTRACT if record[name] is None and name not in NULL_BY_RIGHT]
    says = f"[bold red]✗ null without reason: {', '.join(dead)}[/]" if dead else f"all {len(CONTRACT)} fields are there"
    console.print(f"GET {path}: {says}", soft_wrap=True)
    return not dead


def show_ways_on(console: Console, kept_in: Path | None) -> None:
    """Commands that go on from here."""
    program = os.path.relpath(Path(sys.executable).with_name("perdure"))
    console.print()
    if kept_in is None:
        console.print("Keep a run, to look at it:  make demo ARGS=--keep")
    else:
        console.print(f"Look at this run:           {program} open {kept_in / 'perdure.db'}", soft_wrap=True)
    console.print(f"Write your own workflow:    {program} new shop", soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Verify every installed Python package, with a worker killed half-way."
    )
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--work", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument(
        "--keep", action="store_true", help="keep the folder with the store, the side file and the logs"
    )
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(Path(options.serve)))
        return
    if options.work:
        asyncio.run(work(Path(options.work)))
        return
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    kept = False
    try:
        kept = asyncio.run(demo(folder, console))
    finally:
        if options.keep or not kept:
            console.print(f"Store, side file and logs: {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder)
    if kept:
        show_ways_on(console, folder if options.keep else None)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
