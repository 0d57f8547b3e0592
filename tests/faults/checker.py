"""Checks, once the faults are over, everything promised against the store, the effect log and the ledger.

Each check returns its findings; a sound run has none. The counts show whether the run was worth the time: the number of
losses, repetitions, refusals and completions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.cluster import Cluster
from tests.faults.database import Database
from tests.faults.ledger import Ledger

from perdure.store.open import open_store
from perdure.store.verbs.runs import queries

FINAL = "('completed', 'failed', 'cancelled')"

CHECKS = {
    # Nobody's work: all of it has ended once the last fault is over (Q2).
    "everything has ended": f"SELECT id, phase FROM executions WHERE phase NOT IN {FINAL}",
    # A claim raises the attempt by one, and each attempt is handed out once (Q5).
    "each attempt is claimed once": "SELECT execution_id FROM journal WHERE kind = 'claimed' GROUP BY execution_id "
    "HAVING COUNT(*) <> MAX(attempt) OR COUNT(DISTINCT attempt) <> COUNT(*)",
    # What an attempt lost, it does not write to (Q5).
    "nothing from an attempt that was lost": "SELECT a.execution_id, b.seq, b.kind FROM journal a "
    "JOIN journal b ON b.execution_id = a.execution_id AND b.attempt = a.attempt AND b.seq > a.seq "
    "WHERE a.kind IN ('lost', 'released') AND b.kind IN "
    "('step', 'step_failed', 'child_started', 'published', 'sent', 'waiting', 'completed')",
    # A wait that was met has one outcome, one that was not has none (Q7).
    "a wait is woken once": "SELECT w.execution_id, w.key FROM waits w LEFT JOIN journal j ON j.execution_id = "
    "w.execution_id AND j.key = w.key AND j.kind IN ('event', 'resume') GROUP BY w.execution_id, w.key, w.state "
    "HAVING COUNT(j.seq) <> CASE WHEN w.state = 'met' THEN 1 ELSE 0 END",
    # What belongs together has one tenant (Q10).
    "tenants do not meet": "SELECT c.id FROM executions c JOIN executions p ON p.id = c.parent_execution_id "
    "WHERE p.project_id <> c.project_id UNION ALL SELECT e.id FROM executions e JOIN waits w "
    "ON w.execution_id = e.id WHERE w.project_id <> e.project_id",
    # One execution for each key, besides those that were retried (Q11).
    "a key names one execution": "SELECT workflow_id, key FROM executions WHERE key IS NOT NULL AND retried_as IS NULL "
    "GROUP BY project_id, workflow_id, key HAVING COUNT(*) > 1",
    # A child's key in its parent names one child (I6).
    "a child is started once": "SELECT parent_execution_id, step_key FROM executions WHERE step_key IS NOT NULL "
    "GROUP BY parent_execution_id, step_key HAVING COUNT(*) > 1",
}
FOUND_MAX = 5


@dataclass
class Verdict:
    """What is wrong (nothing, if all is well), and how much of what happened."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, found: object) -> None:
        """Note what a check found, unless it found nothing."""
        if found:
            listed = list(found) if isinstance(found, (list, set, tuple, dict)) else [found]
            more = f" and {len(listed) - FOUND_MAX} more" if len(listed) > FOUND_MAX else ""
            self.wrong.append(f"{what}: {'; '.join(map(str, listed[:FOUND_MAX]))}{more}")


async def check(
    cluster: Cluster, ledger: Ledger, *, keys: dict[str, str] | None = None, one_clock: bool = True
) -> Verdict:
    """Hold a run to the promises. The servers may be stopped. `keys`: the workflow that each kind of the ledger's
    requests starts. `one_clock`: the workers' times can be compared with the store's."""
    verdict = Verdict()
    await check_store(cluster.database, verdict)
    await check_effects(cluster, verdict, one_clock=one_clock)
    await check_ledger(cluster.database, ledger, keys or {}, verdict)
    check_logs(cluster, verdict)
    return verdict


async def check_store(database: Database, verdict: Verdict) -> None:
    """The invariants that can be asked of the database: the product's own, and ours."""
    store = await open_store(database.url)
    try:
        for name, rows in (await store.scan(queries.doctor())).items():
            verdict.add(f"doctor: {name}", rows)
    finally:
        await store.close()
    for name, sql in CHECKS.items():
        verdict.add(name, await database.rows(sql))
    for kind, count in await database.rows("SELECT kind, COUNT(*) FROM journal GROUP BY kind"):
        verdict.counts[f"rows {kind}"] = count
    [[together]] = await database.rows(
        "SELECT COUNT(*) FROM journal e JOIN journal s ON s.execution_id = e.execution_id AND s.seq = e.seq - 1 "
        "AND s.at_us = e.at_us AND s.kind = 'step' WHERE e.kind = 'completed'"
    )
    verdict.counts["ends in the report of a step"] = together
    for phase, count in await database.rows("SELECT phase, COUNT(*) FROM executions GROUP BY phase"):
        verdict.counts[phase] = count


async def check_effects(cluster: Cluster, verdict: Verdict, *, one_clock: bool = True) -> None:
    """Check the step bodies (Q12).

    No body begins under an attempt handed out after the outcome was recorded. A body is repeated only if an attempt
    was lost or handed back. A worker with a good lease starts nothing that another worker was handed.
    """
    rows = cluster.database.rows
    recorded = {
        (execution_id, key): (attempt, at_us)
        for execution_id, key, attempt, at_us in await rows(
            "SELECT execution_id, key, attempt, at_us FROM journal WHERE kind = 'step'"
        )
    }
    claims: dict[str, list[tuple[int, int]]] = {}
    for execution_id, attempt, at_us in await rows(
        "SELECT execution_id, attempt, at_us FROM journal WHERE kind = 'claimed' ORDER BY execution_id, seq"
    ):
        claims.setdefault(execution_id, []).append((attempt, at_us))
    lost: Counter[str] = Counter()
    for execution_id, times in await rows(
        "SELECT execution_id, COUNT(*) FROM journal WHERE kind IN ('lost', 'released') GROUP BY execution_id"
    ):
        lost[execution_id] = times
    begun: Counter[tuple[str, str]] = Counter()
    again: list[str] = []
    stale: list[str] = []
    for effect in cluster.effects.read().begun():
        begun[effect.execution_id, effect.key] += 1
        attempt, _ = recorded.get((effect.execution_id, effect.key), (effect.attempt, 0))
        if effect.attempt > attempt:
            again.append(f"{effect} was recorded by attempt {attempt}")
        later = [at_us for other, at_us in claims.get(effect.execution_id, ()) if one_clock and other > effect.attempt]
        if later and min(later) < effect.at_us:
            verdict.counts["bodies begun just after a freeze"] += 1
            if min(later) < effect.lease_seen_us:
                stale.append(f"{effect}, and a later attempt was handed out at {min(later)}")
    verdict.add("a recorded step ran again", again)
    verdict.add("a lease was found good that others had taken over", stale)
    verdict.add(
        "a step ran more often than it was lost",
        [f"{key} began {times} times" for key, times in begun.items() if times > 1 + lost[key[0]]],
    )
    verdict.counts["bodies begun"] = begun.total()
    verdict.counts["bodies begun again"] = begun.total() - len(begun)
    stale_ends = 0
    for effect in cluster.effects.all:
        attempt, _ = recorded.get((effect.execution_id, effect.key), (effect.attempt, 0))
        stale_ends += effect.what == "end" and effect.attempt < attempt
    verdict.counts["bodies ended as a stale attempt"] = stale_ends


async def check_ledger(database: Database, ledger: Ledger, keys: dict[str, str], verdict: Verdict) -> None:
    """What callers were told is so (Q1, Q11), and nobody was told of a server's own error."""
    for what, workflow in keys.items():
        there = await database.rows(
            f"SELECT key, COUNT(*) FROM executions WHERE workflow_id = '{workflow}' AND key IS NOT NULL GROUP BY key"
        )
        verdict.add("ledger", ledger.disagreements(what, dict(there)))
    verdict.add("a server failed", ledger.faults)
    for outcome, count in ledger.counts().items():
        verdict.counts[f"asked: {outcome}"] = count


def check_logs(cluster: Cluster, verdict: Verdict) -> None:
    """No process has met what it did not expect."""
    for log in sorted(cluster.folder.glob("*.log")):
        text = log.read_text(errors="replace")
        if "Traceback" in text:
            at = text.index("Traceback")
            verdict.add(f"a traceback in {log.name}", text[max(0, at - 400) : at + 1_500])
        verdict.counts["lost leases noticed"] += text.count("lost its lease")
