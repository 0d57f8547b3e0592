"""Replay seeds: `python -m tests.sim --seed 17` prints what happened, `--seeds 1000` runs many and counts."""

import argparse
import sys
import time
from collections import Counter

from tests.sim.audit import Violation
from tests.sim.mutants import MUTANTS
from tests.sim.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the (first) seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to run")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="take a guard out")
    parser.add_argument("--forks", action="store_true", help="fork and retry executions, too")
    parser.add_argument("--quiet", action="store_true", help="no trace, even for a single seed")
    options = parser.parse_args()
    mutant = MUTANTS[options.mutant] if options.mutant else None
    counts: Counter[str] = Counter()
    trace = options.seeds == 1 and not options.quiet
    began = time.perf_counter()
    broken = 0
    for seed in range(options.seed, options.seed + options.seeds):
        world = World(seed, mutant, trace=trace, forks=options.forks)
        try:
            world.run()
        except Violation as violation:
            broken += 1
            sys.stdout.write(f"seed {seed}: {violation}\n")
        finally:
            if trace:
                for at_us, what, details in world.trace:
                    words = " ".join(str(detail) for detail in details)
                    sys.stdout.write(f"{at_us / 1e6:10.4f}  {what}  {words}\n")
        counts.update(world.counts)
    seconds = time.perf_counter() - began
    for what, times in sorted(counts.items()):
        sys.stdout.write(f"{times:10d}  {what}\n")
    sys.stdout.write(f"{options.seeds} seeds, {options.seeds / seconds:.1f} a second, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
