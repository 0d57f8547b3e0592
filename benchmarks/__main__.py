"""Measure Perdure against the least a durable engine can do here: `python -m benchmarks --help`.

    python -m benchmarks                         everything on the embedded default, some ten minutes
    python -m benchmarks W1 W2 --mode http       two workloads, with server, worker and client as three processes
    python -m benchmarks --database postgres     on a PostgreSQL of its own, started for this
    python -m benchmarks --small                 everything, in little: that it runs, not how fast

Each run is a process of its own. Where the floor has the same workload, its runs and ours take turns, and the figure
that travels from machine to machine is the median of the pairs' ratios.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.figures import ROOT, machine, measured
from rich.console import Console
from rich.table import Table
from tests.postgres import SAFE
from tests.postgres import Server as PostgresServer
from tests.postgres import make as make_database
from tests.postgres import running as running_postgres

WORKLOADS: Final = (
    "ready",
    "idle",
    "W1",
    "W2",
    "W3",
    "W4",
    "W5",
    "W6",
    "W7",
    "W8",
    "parking",
    "stream",
    "agents",
    "servers",
)
GROWN: Final = 1_000_000
POSTGRES: Final = {**SAFE, "shared_buffers": "1GB", "max_wal_size": "4GB"}
"""As somebody would set it up for this machine; every commit is on disk."""

Figures = dict[str, Any]


class Plan(NamedTuple):
    """How long, how often, how many."""

    mode: str
    seconds: float
    pairs: int
    conc: int
    small: bool
    folder: Path
    postgres: PostgresServer | None = None

    @property
    def program(self) -> str:
        return f"benchmarks.{self.mode}"

    def run(self, *arguments: str, program: str | None = None, store: str | None = None) -> Figures:
        """One run of ours, on a store of its own unless one is given."""
        if store is None and self.postgres is not None:
            store = self.new_database()
        return measured(program or self.program, *arguments, *(() if store is None else ("--store", store)))

    def new_database(self) -> str:
        """The address of an empty database."""
        assert self.postgres is not None
        return self.postgres.database_url(asyncio.run(make_database(server=self.postgres)))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def median(figures: Sequence[Figures], name: str) -> float:
    return statistics.median(float(one[name]) for one in figures)


def pairs(plan: Plan, workload: str, name: str, seconds: float, *, lower_is_better: bool = False) -> Figures:
    """The floor and ours, taking turns."""
    common = ("--seconds", str(seconds), "--conc", str(plan.conc))
    floors: list[Figures] = []
    ours: list[Figures] = []
    for turn in range(plan.pairs):
        floors.append(measured("benchmarks.floor", workload, *common))
        ours.append(plan.run(workload, *common))
        say(f"  pair {turn + 1}: floor {floors[-1][name]:,.2f}, ours {ours[-1][name]:,.2f} {name}")
    ratios = [float(b[name]) / float(a[name]) for a, b in zip(floors, ours, strict=True)]
    if not lower_is_better:
        ratios = [1 / ratio for ratio in ratios]
    return {
        "unit": name,
        "ours": median(ours, name),
        "floor": median(floors, name),
        "times_the_floor": statistics.median(ratios),
        "ratios": ratios,
        "runs": ours,
        "floor_runs": floors,
    }


def throughput(plan: Plan, workload: str) -> Figures:
    figures = pairs(plan, workload, "executions_per_s", plan.seconds)
    written = [run["bytes_written_per_execution"] for run in figures["runs"]]
    figures["bytes_written_per_execution"] = statistics.median(written) if None not in written else None
    return figures


def one_caller(plan: Plan, workload: str) -> Figures:
    return pairs(plan, workload, "p50_ms", plan.seconds, lower_is_better=True)


def several(plan: Plan, *arguments: str) -> list[Figures]:
    """Three runs, or one if small."""
    return [plan.run(*arguments) for _ in range(1 if plan.small else 3)]


def family(plan: Plan, workload: str) -> Figures:
    count = "5" if plan.small else "100"
    runs = several(plan, workload, "--seconds", str(plan.seconds), "--count", count)
    return {"unit": "p50_ms", "ours": median(runs, "p50_ms"), "runs": runs}


def sleepers(plan: Plan, workload: str) -> Figures:
    arguments = (workload, "--count", "20" if plan.small else "2000")
    runs = several(plan, *arguments)
    figures: Figures = {
        "unit": "last_ms_late",
        "ours": median(runs, "last_ms_late"),
        "bytes_per_sleeper": median(runs, "bytes_per_sleeper"),
        "runs": runs,
    }
    if plan.mode == "embedded":  # an option of the embedded worker only
        unparked = several(plan, *arguments, "--no-parks")
        figures["bytes_per_sleeper_not_parked"] = median(unparked, "bytes_per_sleeper")
        figures["last_ms_late_not_parked"] = median(unparked, "last_ms_late")
    return figures


def killed(plan: Plan, workload: str) -> Figures:
    executions = "20" if plan.small else "200"
    arguments = (plan.mode, "--executions", executions)
    runs = [plan.run(*arguments, program="benchmarks.killed") for _ in range(1 if plan.small else 3)]
    return {
        "unit": "restart_to_done_s",
        "ours": median(runs, "restart_to_done_s"),
        "recorded_steps_run_again": max(run["recorded_steps_run_again"] for run in runs),
        "bodies_run_twice": max(run["bodies_run_twice"] for run in runs),
        "runs": runs,
    }


def submits(plan: Plan, workload: str) -> Figures:
    figures = pairs(plan, workload, "submits_per_s", plan.seconds)
    if plan.mode == "http":
        for name in ("plain_per_s", "batched_per_s"):
            if all(run[name] is not None for run in figures["runs"]):
                figures[name] = median(figures["runs"], name)
        figures["load_program"] = figures["runs"][0]["load_program"]
    return figures


def grown(plan: Plan, workload: str) -> Figures:
    store = str(plan.folder / "grown.db") if plan.postgres is None else plan.new_database()
    amount = 2_000 if plan.small else GROWN
    made = measured("benchmarks.grown", store, str(amount))
    say(f"  {amount:,} finished executions, {made['bytes_per_execution']:.0f} bytes each, in {made['took_s']:.0f} s")
    common = ("W1", "--seconds", str(plan.seconds), "--conc", str(plan.conc))
    empty: list[Figures] = []
    full: list[Figures] = []
    for turn in range(plan.pairs):
        empty.append(plan.run(*common))
        full.append(plan.run(*common, store=store))
        say(f"  pair {turn + 1}: {empty[-1]['executions_per_s']:,.0f} empty, {full[-1]['executions_per_s']:,.0f} grown")
    ratios = [b["executions_per_s"] / a["executions_per_s"] for a, b in zip(empty, full, strict=True)]
    return {
        "unit": "share of the empty store's executions_per_s",
        "ours": statistics.median(ratios),
        "ratios": ratios,
        "bytes_per_execution": made["bytes_per_execution"],
        "runs": full,
        "empty_runs": empty,
    }


def ready(plan: Plan, workload: str) -> Figures:
    runs: list[Figures] = []
    for _ in range(1 if plan.small else 5):
        if plan.mode == "http":
            runs.append(plan.run(workload))
            continue
        command = [sys.executable, "-m", plan.program, workload]
        if plan.postgres is not None:
            command += ["--store", plan.new_database()]
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        runs.append({"ready_s": time.perf_counter() - begin})
        process.communicate()
    return {"unit": "ready_s", "ours": median(runs, "ready_s"), "runs": runs}


def idle(plan: Plan, workload: str) -> Figures:
    run = plan.run(workload, "--seconds", "1" if plan.small else "30")
    return {"unit": "idle_cpu_percent", "ours": run["idle_cpu_percent"], "runs": [run], **run}


def parking(plan: Plan, workload: str) -> Figures:
    """A parent that waits for a child a hundred times, beside one of a hundred steps."""
    seconds = ("--seconds", str(plan.seconds))
    runs = several(plan, workload, *seconds)
    figures: Figures = {"unit": "times a parent of 100 steps", "ours": median(runs, "waits_to_steps"), "runs": runs}
    for name in ("waits100_ms", "hundredth_to_tenth"):
        figures[name] = median(runs, name)
    if plan.mode == "embedded":  # an option of the embedded worker only
        figures["waits_to_steps_not_parked"] = median(several(plan, workload, *seconds, "--no-parks"), "waits_to_steps")
    return figures


def stream(plan: Plan, workload: str) -> Figures:
    """How long a token takes from where it is emitted to the client: of one stream alone, and of thirty at once."""
    seconds = ("--seconds", str(plan.seconds))
    alone = several(plan, workload, *seconds)
    crowd = several(plan, workload, *seconds, "--count", "3" if plan.small else "30")
    figures: Figures = {"unit": "first_p50_ms", "ours": median(alone, "first_p50_ms"), "runs": [*alone, *crowd]}
    for name in ("first_p95_ms", "p50_ms", "p95_ms"):
        figures[name] = median(alone, name)
    for name in ("first_p95_ms", "p50_ms", "p95_ms"):
        figures[f"of_many_{name}"] = median(crowd, name)
    return figures


def agents(plan: Plan, workload: str) -> Figures:
    """A durable agent beside the plain one."""
    count = 1 if plan.small else 3
    runs = [measured("benchmarks.agents", "--seconds", str(plan.seconds)) for _ in range(count)]
    return {
        "unit": "of the plain agent's runs/s",
        "ours": median(runs, "of_plain"),
        "agent_runs_per_s": median(runs, "runs_per_s"),
        "agent_p50_ms": median(runs, "p50_ms"),
        "plain_agent_runs_per_s": median(runs, "plain_runs_per_s"),
        "runs": runs,
    }


def servers(plan: Plan, workload: str) -> Figures:
    """W1 through two servers with four workers, beside one with one."""
    assert plan.postgres is not None
    common = ("W1", "--seconds", str(plan.seconds), "--conc", str(plan.conc))
    one: list[Figures] = []
    two: list[Figures] = []
    for turn in range(plan.pairs):
        one.append(plan.run(*common))
        two.append(plan.run(*common, "--servers", "2", "--workers", "4"))
        say(f"  pair {turn + 1}: {one[-1]['executions_per_s']:,.0f} one, {two[-1]['executions_per_s']:,.0f} two")
    ratios = [b["executions_per_s"] / a["executions_per_s"] for a, b in zip(one, two, strict=True)]
    return {
        "unit": "times one server's executions_per_s",
        "ours": statistics.median(ratios),
        "lock_wait_percent": median(two, "lock_wait_percent"),
        "ratios": ratios,
        "runs": two,
        "one_runs": one,
    }


KINDS: Final[dict[str, Callable[[Plan, str], Figures]]] = {
    "ready": ready,
    "idle": idle,
    "W1": throughput,
    "W2": throughput,
    "W3": one_caller,
    "W4": family,
    "W5": sleepers,
    "W6": killed,
    "W7": submits,
    "W8": grown,
    "parking": parking,
    "stream": stream,
    "agents": agents,
    "servers": servers,
}


def remarks(workload: str, figures: Figures) -> str:
    """What else there is to say of a workload, in a line."""
    said: list[str] = []
    if workload == "W2":
        said.append(f"{figures['ours'] * 10:,.0f} steps/s")
    if workload == "W3":
        said += [f"{name[:-3]} {median(figures['runs'], name):.2f} ms" for name in ("p95_ms", "p99_ms")]
    words = {
        "bytes_written_per_execution": "{:,.0f} bytes written per execution",
        "bytes_per_sleeper": "{:,.0f} bytes per sleeper",
        "bytes_per_sleeper_not_parked": "{:,.0f} not parked",
        "recorded_steps_run_again": "{} recorded steps run again",
        "bodies_run_twice": "{} bodies run twice",
        "plain_per_s": "{:,.0f} plain requests/s",
        "batched_per_s": "{:,.0f}/s in batches of 1,000",
        "idle_rss_mb": "{:.0f} MB",
        "worker_rss_mb": "worker {:.0f} MB",
        "bytes_per_execution": "{:,.0f} bytes per finished execution",
        "waits100_ms": "{:,.0f} ms for 100 waits",
        "hundredth_to_tenth": "the hundredth wait {:.2f} times the tenth",
        "waits_to_steps_not_parked": "not parked {:.2f}",
        "agent_runs_per_s": "{:,.0f} runs/s",
        "agent_p50_ms": "p50 {:.2f} ms",
        "plain_agent_runs_per_s": "plain {:,.0f} runs/s",
        "lock_wait_percent": "{:.1f} % of busy sessions wait for a lock",
    }
    said += [text.format(figures[name]) for name, text in words.items() if figures.get(name) is not None]
    return ", ".join(said)


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"Perdure, {report['mode']}, {report['database']}", title_justify="left")
    for heading in ("", "ours", "floor", "floor ÷ ours", "also"):
        table.add_column(heading, justify="left" if heading in ("", "also") else "right", overflow="fold")
    for workload, figures in report["workloads"].items():
        table.add_row(
            workload,
            f"{figures['ours']:,.2f} {figures['unit']}",
            f"{figures['floor']:,.2f}" if "floor" in figures else "",
            f"{figures['times_the_floor']:.2f}" if "times_the_floor" in figures else "",
            remarks(workload, figures),
        )
    Console(width=150 if not sys.stdout.isatty() else None).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--mode", choices=["embedded", "http"], default="embedded")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seconds", type=float, help="of each run (default 10)")
    parser.add_argument("--pairs", type=int, help="runs of ours and of the floor, taking turns (default 5)")
    parser.add_argument("--conc", type=int, default=256, help="callers in W1, W2 and W8 (default 256)")
    parser.add_argument("--small", action="store_true", help="as little as possible of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every run there")
    given = parser.parse_args()
    several_servers = given.mode == "http" and given.database == "postgres"
    impossible = {"servers": not several_servers, "agents": given.mode == "http" or given.database != "sqlite"}
    possible = [one for one in WORKLOADS if not impossible.get(one, False)]
    wanted = given.workloads or possible
    for one in wanted:
        if one not in possible:
            parser.error(f"there is no workload {one!r}; there are {', '.join(possible)}")
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-"))
        postgres = opened.enter_context(running_postgres(POSTGRES)) if given.database == "postgres" else None
        plan = Plan(
            given.mode,
            given.seconds or (0.2 if given.small else 10.0),
            given.pairs or (1 if given.small else 5),
            16 if given.small else given.conc,
            given.small,
            Path(folder),
            postgres,
        )
        report: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
            "mode": plan.mode,
            "database": given.database,
            "seconds": plan.seconds,
            "pairs": plan.pairs,
            "conc": plan.conc,
            "machine": machine(folder),
            "workloads": {},
        }
        for workload in wanted:
            say(f"{workload} …")
            report["workloads"][workload] = KINDS[workload](plan, workload)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report["machine"]))
    show(report)


if __name__ == "__main__":
    main()
