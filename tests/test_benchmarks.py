"""The benchmarks run, in little. Their figures mean nothing here; what must hold at any speed is looked at."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.killed import Side

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The report of a small run, and the printed table."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--small", "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found, done.stdout


def test_a_line_that_is_still_being_written_is_no_line_yet(tmp_path: Path) -> None:
    side = Side(tmp_path / "side")
    assert side.lines() == []
    for text, lines in (("7 a slow\n8 a", 1), (" slow#2\n", 2)):
        with side.path.open("a") as file:
            file.write(text)
        assert side.lines() == [("7", "a", "slow"), ("8", "a", "slow#2")][:lines]


# In three parts, so that none takes minutes where many tests share a slow machine.
RATES = ["W1", "W2", "W3", "W6", "W7"]
WAITS = ["ready", "idle", "W4", "W5", "parking", "stream"]


@pytest.mark.parametrize(
    ("mode", "database", "workloads"),
    [
        ("embedded", "sqlite", RATES),
        ("embedded", "sqlite", WAITS),
        ("embedded", "sqlite", ["W8", "agents"]),
        ("http", "sqlite", ["W1", "W6", "W7"]),
        ("embedded", "postgres", RATES),
        ("embedded", "postgres", WAITS),
        ("embedded", "postgres", ["W8"]),
        ("http", "postgres", ["W1", "W6", "servers"]),
    ],
)
@pytest.mark.slow
def test_every_workload_runs_and_is_reported(tmp_path: Path, mode: str, database: str, workloads: list[str]) -> None:
    report, table = run(tmp_path, *workloads, "--mode", mode, "--database", database)
    assert list(report["workloads"]) == workloads
    assert all(one["ours"] is not None and one["runs"] for one in report["workloads"].values())
    for name, one in report["workloads"].items():
        assert one.get("times_the_floor", 1.0) > 0, name
        assert one.get("recorded_steps_run_again", 0) == 0, name
    assert report["machine"]["cores"] >= 1 and report["machine"]["versions"]["perdure"]
    assert all(workload in table for workload in workloads)


def test_an_unknown_workload_is_refused_with_those_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "W99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "W99" in done.stderr and "W8" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "names"),
    [
        ("crowd", ["--streams", "20", "--rounds", "2", "--seconds", "0.2"], ["idle_cpu_percent", "last_ms"]),
        (
            "followers",
            ["--streams", "6", "--rate", "20", "--rounds", "1", "--seconds", "0.5"],
            ["added_cpu_percent", "rss_mb"],
        ),
        (
            "crew",
            ["--workers", "3", "--turns", "1", "--seconds", "0.2", "--idle-seconds", "0.5"],
            ["idle_cpu_percent", "written_kb_per_s", "all_to_one", "beside_to_one"],
        ),
        ("due", ["--sleepers", "50", "--seconds", "0"], ["last_s_late", "server_us_per_wake"]),
        ("looks", ["--executions", "2000", "--seconds", "0.2"], ["pages", "gets_per_s"]),
        ("conversation", ["--turns", "12", "--compact"], ["last_to_tenth", "stored_to_message_bytes"]),
    ],
)
def test_looks_streams_and_conversations_are_measured(program: str, arguments: list[str], names: list[str]) -> None:
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(names) <= set(found)


@pytest.mark.long
@pytest.mark.timeout(600)  # its worker listens on port 8000: it waits for its turn
def test_runs_of_an_existing_client_are_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.existing", "--runs", "20", "--callers", "5", "--idle-runs", "3"]
    done = subprocess.run([*command, "--statements"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pushes_per_run"] >= 1
    assert found["requests_per_run"]["POST /internal/executions/{id}/complete"] == 1
    assert found["statements_per_run"]["all"] > found["changes_per_run"] > found["commits_per_run"] > 0
    assert found["dispatch_busy"]["calls"] == 20


@pytest.mark.slow
def test_a_stand_in_for_its_worker_asks_a_server_that_does_the_least() -> None:
    command = [sys.executable, "-m", "benchmarks.stand_in", "--runs", "10", "--rate", "50", "--floor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, floor = map(json.loads, done.stdout.splitlines())
    assert (ours["server"], floor["server"]) == ("Server", "FloorServer")
    assert ours["requests_per_run"] == floor["requests_per_run"] == 17
    assert floor["server_cpu_ms_per_run"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_one_caller_is_measured_beside_one_commit_over_http(database: str) -> None:
    command = [sys.executable, "-m", "benchmarks.single", "--seconds", "0.2", "--turns", "1", "--database", database]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["p50_ms"] > 0 and found["floor_p50_ms"] > 0
