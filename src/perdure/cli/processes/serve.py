"""The processes of servers and workers."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.options import DatabaseOption, JsonFlag, PortOption, UrlOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from signal import Signals

    from perdure.sdk.transports.http import HttpTransport
    from perdure.sdk.workers.worker import Worker

REACH_SECONDS = 1.0
CLEAN_UP_SECONDS = 5.0
"""Most seconds that cancelled steps may take to stop, if the grace is not shorter."""


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Serve", serve, work)


def serve(
    database: DatabaseOption = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on. Default: 127.0.0.1.")] = None,
    port: PortOption = None,
    insecure_local: Annotated[
        bool | None,
        typer.Option("--insecure-local", help="No keys: every client of the loopback address may do everything."),
    ] = None,
    lease_seconds: Annotated[
        float | None,
        typer.Option(
            "--lease-seconds", help="How many seconds a worker may be silent. Default: 12.", min=0.5, max=86_400
        ),
    ] = None,
    retention_days: Annotated[
        float | None,
        typer.Option("--retention-days", help="How many days final executions are kept. Default: 30.", min=0),
    ] = None,
    settings: Annotated[
        str | None, typer.Option("--settings", help="A TOML file with any setting; the environment and options win.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="DEBUG, INFO, WARNING, ERROR.")] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", help="json or text. Default: text on a terminal.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, on a terminal too.")] = False,
) -> None:
    """Serve a store to clients and workers, until SIGTERM."""
    from perdure.server import app
    from perdure.server.process.settings import load

    app.run(
        load(
            {
                "store": database,
                "host": host,
                "port": port,
                "insecure_local": insecure_local,
                "lease_seconds": lease_seconds,
                "retention_days": retention_days,
                "log_level": log_level,
                "log_format": log_format or ("json" if as_json else None),
            },
            file=settings,
            otherwise={"log_format": "text" if sys.stderr.isatty() else "json"},
        )
    )


def work(
    target: Annotated[
        str, typer.Argument(metavar="APP[:REGISTRY]", help="Workflows: app.py, app:registry, shop.app:registry.")
    ],
    deployment: Annotated[
        str, typer.Option("--deployment", envvar="PERDURE_DEPLOYMENT", help="The deployment to serve.")
    ] = "default",
    capacity: Annotated[
        int, typer.Option("--capacity", "-c", help="Executions that run here at once.", min=1, max=100_000)
    ] = 500,
    grace: Annotated[
        float, typer.Option("--grace", help="Seconds that steps may take to end after SIGTERM.", min=0)
    ] = 25.0,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Start another worker when the process dies (killed, out of memory, crashed). Its executions "
            "continue elsewhere at once.",
        ),
    ] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Run the workflows of an application for a server, until SIGTERM."""
    import asyncio

    from perdure.cli.base.connect import say_if_guessed
    from perdure.cli.processes import app_loader, dev_facts, restarting
    from perdure.sdk.base.interrupts import run_until_complete
    from perdure.sdk.clients.credentials import find
    from perdure.sdk.transports.http import HttpTransport
    from perdure.sdk.workers.lease import HttpLease
    from perdure.sdk.workers.loop_watchdog import loop_watchdog
    from perdure.sdk.workers.worker import Worker
    from perdure.server.process.signals import SIGNALS, raise_file_limit

    if child:
        end_with_parent()
    _log(as_json)
    raise_file_limit()
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # an agent's library prints a banner otherwise
    access = find(url)
    say_if_guessed(access)
    # With --restart, the lines below run in a new process each time.
    begun = restarting.keep_alive(access) if restart else None
    registry = app_loader.load(target)
    transport = HttpTransport(access.urls, access.api_key)
    worker = Worker(
        transport,
        registry,
        deployment=deployment,
        capacity=capacity,
        lease=HttpLease(transport.urls, access.api_key, transport.leave, begun),
        grace_seconds=grace,
    )
    if child:
        worker.watcher = dev_facts.Teller()
    with asyncio.Runner(loop_factory=loop_factory()) as runner, loop_watchdog(runner.get_loop()):
        signals = SIGNALS if begun is None else restarting.PASSED_ON
        main = runner.get_loop().create_task(_work(worker, transport, deployment, signals, child=child))
        run_until_complete(runner.get_loop(), main)


async def _work(
    worker: "Worker", transport: "HttpTransport", deployment: str, signals: "Sequence[Signals]", *, child: bool
) -> None:
    import asyncio
    import logging
    from concurrent.futures import ThreadPoolExecutor

    from perdure.sdk.workers.step_threads import THREAD_NAME
    from perdure.server.process.signals import when_asked_to_stop
    from perdure.wire.base.errors import Unavailable, UnknownOutcome

    logger = logging.getLogger("perdure.worker")
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask() -> None:
        if stop.is_set():
            logger.warning("A second signal: the worker ends at once. Its executions go on when its lease has ended.")
            logging.shutdown()
            os._exit(1)
        stop.set()
        if worker.running or not child:
            logger.info(
                "Draining: %d executions have up to %.4g s to end their steps, then go back to their queues. A second "
                "signal ends the worker at once.",
                worker.running,
                worker.grace_seconds,
            )

    # Our own executor: the loop would wait for threads, and nothing stops a call in asyncio.to_thread().
    threads = ThreadPoolExecutor(thread_name_prefix=THREAD_NAME)
    loop.set_default_executor(threads)
    forget = when_asked_to_stop(loop, ask, signals)
    stopping = asyncio.create_task(stop.wait())
    try:
        told = False
        while not stop.is_set():
            try:
                await worker.start()
                break
            except (Unavailable, UnknownOutcome) as error:
                if not told:
                    logger.warning("%s Trying until it is there.", error)
                    told = True
                await asyncio.wait({stopping}, timeout=REACH_SECONDS)
        if not stop.is_set():
            if child:
                _tell_parent(worker)
            else:
                logger.info(
                    "Serving deployment %r at %s: %s.",
                    deployment,
                    ", ".join(transport.urls),
                    ", ".join(worker.registry.workflows),
                )
            await stopping
            await worker.drain()
    finally:
        stopping.cancel()
        forget()
        await transport.close()
        threads.shutdown(wait=False, cancel_futures=True)
    if left := await _left(THREAD_NAME, min(worker.grace_seconds, CLEAN_UP_SECONDS)):
        # Threads and tasks that swallow a cancellation would keep the process alive.
        logger.warning("%d tasks or threads of steps did not stop in time; the worker ends without them.", left)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


async def _left(thread_name: str, seconds: float) -> int:
    import asyncio
    import threading
    import time

    until = time.monotonic() + seconds
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=seconds)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(thread_name)]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return len(tasks) + sum(thread.is_alive() for thread in threads)


def _tell_parent(worker: "Worker") -> None:
    import json

    from perdure.cli.processes.app_loader import sample

    workflows = [
        {"name": one.name, "sample": sample(one.input_type) if one.takes_input else None}
        for one in worker.registry.workflows.values()
    ]
    typer.echo(json.dumps({"worker_id": worker.id, "workflows": workflows}))
    sys.stdout.flush()


def end_with_parent(descriptor: int = 0, heard: "Callable[[bytes], object]" = lambda line: None) -> None:
    """Drain when the parent ends, which holds the other end of `descriptor` (standard input). A thread passes each line
    of the parent to `heard`."""
    import signal
    import threading

    def watch() -> None:
        # A thread that reads sys.stdin would disturb the interpreter's exit.
        rest = b""
        while chunk := os.read(descriptor, 65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                heard(line)
        signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows

    threading.Thread(target=watch, name="perdure-parent", daemon=True).start()


def _log(as_json: bool) -> None:
    import logging

    from perdure.sdk.workflows.logs import ReplayFilter
    from perdure.server.telemetry import logs

    form: Literal["json", "text"] = "json" if as_json else "text"
    logs.set_up("INFO", form)
    for handler in logging.getLogger().handlers:
        handler.addFilter(ReplayFilter())


def loop_factory() -> "type | None":
    try:
        import uvloop  # not available on Windows
    except ImportError:
        return None
    return uvloop.Loop
