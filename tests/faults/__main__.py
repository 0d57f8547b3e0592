"""Real faults on real processes: `python -m tests.faults` plays every scenario and prints what came of it.

It ends with 1 when a promise was broken; then it prints the seed, the timeline, and where the logs are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.run import NotHere, Size
from tests.faults.scenarios import index
from tests.faults.scenarios.index import BOTH, SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"which ones; all: {', '.join(SCENARIOS)}")
    parser.add_argument("--size", type=Size, choices=[*Size], default=Size.FULL)
    parser.add_argument("--database", choices=(*BOTH, "pair"), help="only on this one")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="the order of faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time, each in a process of its own")
    parser.add_argument("--keep", action="store_true", help="keep the folders of sound runs, too")
    options = parser.parse_args()
    unknown = set(options.names) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    cases = [
        (name, database)
        for name in options.names or SCENARIOS
        for database in SCENARIOS[name].databases
        if options.database in (None, database)
    ]
    results = []
    played: Iterator[dict[str, Any]]
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.jobs > 1:
            played = pool.map(lambda case: play_apart(case[0], case[1], options), cases)
        else:
            played = (asyncio.run(play(name, on, options.size, options.seed, options.keep)) for name, on in cases)
        for result in played:
            results.append(result)
            show(result)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{len(results)} runs, seed {options.seed}: {summary(results)}")
    return 1 if any(one["wrong"] for one in results) else 0


def play_apart(name: str, database: str, options: argparse.Namespace) -> dict[str, Any]:
    """Play a scenario in a separate process. Returns the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.faults", name, "--database", database, "--size", options.size.value]
        command += ["--seed", str(options.seed), "--json", str(path), *(["--keep"] if options.keep else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())[0]
            return found
    unheard = {"scenario": name, "database": database, "size": options.size.value, "seed": options.seed}
    return {**unheard, "seconds": 0.0, "wrong": f"it ended with {done.returncode}:\n{done.stdout}"}


async def play(name: str, database: str, size: Size, seed: int, keep: bool) -> dict[str, Any]:
    """Play a scenario on a database. Returns the outcome."""
    began = time.monotonic()
    figures: dict[str, Any] = {}
    wrong = ""
    try:
        await index.play(name, database, size, seed, figures, keep=keep)
    except NotHere as error:
        figures["not played"] = str(error)
    except Exception:  # whatever it was, the others are played all the same
        wrong = traceback.format_exc()
    return {
        "scenario": name,
        "database": database,
        "size": size.value,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "wrong": wrong,
        **figures,
    }


def outcome(result: dict[str, Any]) -> str:
    """What came of a run, in a word or two. What this machine cannot play proves nothing."""
    return "BROKEN" if result["wrong"] else "not played" if "not played" in result else "sound"


def summary(results: list[dict[str, Any]]) -> str:
    """All runs that were not sound, by name."""
    said = []
    for word in ("BROKEN", "not played"):
        names = [f"{one['scenario']} on {one['database']}" for one in results if outcome(one) == word]
        said += [f"{word.lower()}: {', '.join(names)}"] if names else []
    return "; ".join(said) or "all sound"


def show(result: dict[str, Any]) -> None:
    """A block of the table."""
    said = outcome(result)
    print(f"\n{result['scenario']:<12} {result['database']:<9} {said:<10} {result['seconds']:>7.1f} s", flush=True)
    for name, value in result.items():
        if name == "counts":
            print("  " + " · ".join(f"{what} {count:,}" for what, count in value.items()))
        elif name not in ("scenario", "database", "size", "seed", "seconds", "wrong"):
            print(f"  {name}: {value}")
    if result["wrong"]:
        print(result["wrong"], flush=True)


if __name__ == "__main__":
    sys.exit(main())
