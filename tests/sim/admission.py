"""Claims and explanations of one state never disagree, and removing the named obstacle starts the run.

At moments of a simulated life a savepoint varies the state by chance: limits, delays, Pythons, lost and full workers.
Then every queued execution is explained, and every worker claims to capacity. A rollback undoes all changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, TypeVar

from tests.sim.audit import Violation
from tests.sim.loop import EPOCH_US
from tests.sim.server import LEASE_US
from tests.sim.world import World

from perdure.store.drivers.sqlite_run import SQLiteRun
from perdure.store.verbs.insight import why
from perdure.store.verbs.runs import claims, transitions
from perdure.store.verbs.runs.queues import put_queue
from perdure.store.verbs.steering import pauses
from perdure.store.verbs.steering.pauses import PauseTarget
from perdure.wire.base.errors import PerdureError
from perdure.wire.insight.explain import explain
from perdure.wire.insight.why import Why
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.queues import PauseKind
from perdure.wire.runs.requests import WORKER_PROTOCOL, QueueSpec, RegisterRequest, WorkflowSpec

T = TypeVar("T")

EVERY_US = 700_000
REMOVALS_MAX = 12
ALL = 1_000_000


class Watched(World):
    """A life whose states are looked at now and then."""

    def _plan(self) -> None:
        super()._plan()
        self.watch = Watch(self)


class Watch:
    """Looks at the states of a world now and then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store
        self._random = Random(f"admission {world.seed}")
        self.counts: Counter[str] = Counter()
        self._now_us = 0
        self._made = 0
        """Numbers workers and claims; these claims' ids come after all others."""
        world._in(EVERY_US, self._look)

    def _look(self) -> None:
        self._now_us = EPOCH_US + self._world.loop.us
        for _ in range(2):
            with self._undone():
                self._vary()
                for (deployment_id,) in self._store.rows(
                    "SELECT DISTINCT deployment_id FROM executions WHERE phase = 'queued' ORDER BY deployment_id"
                ):
                    self._compare(deployment_id)
        self._world._in(EVERY_US, self._look)

    def _compare(self, deployment_id: str | None) -> None:
        ids = [
            id
            for (id,) in self._store.rows(
                "SELECT id FROM executions WHERE phase = 'queued' AND deployment_id IS ? ORDER BY id", deployment_id
            )
        ]
        told = {id: self._explain(id) for id in ids}
        with self._undone():
            claimed = self._claim_all(deployment_id)
        for id, found in told.items():
            self.counts["states"] += 1
            self.counts[f"rule {found.rule}"] += 1
            if id in claimed and found.rule not in (None, Rule.ORDER):
                raise Violation("claims and explanations agree", f"{id} was claimed: {found.sentence}")
            if id not in claimed and found.rule is None:
                raise Violation("claims and explanations agree", f"{id} was not claimed: {found.sentence}")
        held = [id for id, found in told.items() if found.rule is not None]
        if held:
            with self._undone():
                self._remove_all(self._random.choice(held))

    def _remove_all(self, id: str) -> None:
        """Remove each named obstacle until the execution starts."""
        said: list[str] = []
        for _ in range(REMOVALS_MAX):
            found = self._explain(id)
            said.append(found.sentence)
            if found.rule is not None:
                self.counts[f"removed {found.rule}"] += 1
                self._remove(id, found)
            ((phase, deployment_id),) = self._store.rows("SELECT phase, deployment_id FROM executions WHERE id = ?", id)
            if phase != "queued":
                return
            with self._undone():
                if id in self._claim_all(deployment_id):
                    return
            if found.rule is None:
                break
        raise Violation("to remove what holds a run starts it", f"{id} was not claimed: {said}")

    def _remove(self, id: str, found: Why) -> None:
        ((workflow, deployment_id, queue, python),) = self._store.rows(
            "SELECT workflow_id, deployment_id, queue_name, python FROM executions WHERE id = ?", id
        )
        match found.rule:
            case Rule.START_TIME:
                assert found.until_us is not None
                self._now_us = max(self._now_us, found.until_us)
                self._run(transitions.wake_due(now_us=self._now_us, limit=ALL).start())
            case Rule.QUEUE_LIMIT | Rule.KEY_LIMIT:
                self._run(put_queue(self._world.project_id, QueueSpec(queue, ALL, ALL)))
            case Rule.RELEASING:
                self._work()
            case Rule.ORDER:
                self._claim_all(deployment_id)
            case _ if found.pause is not None:
                pause = found.pause
                what = PauseTarget(self._world.project_id, pause.kind, pause.name, pause.concurrency_key or "")
                self._run(pauses.unpause(what=what).start())
            case _:
                self._register(deployment_id or "sim", workflow, python or "3.11")

    def _register(self, deployment_id: str, workflow: str, python: str) -> None:
        self._made += 1
        specs = [WorkflowSpec(workflow)]
        request = RegisterRequest(f"~{self._made}", deployment_id, python, specs, protocol=WORKER_PROTOCOL)
        verb = claims.register(
            project_id=self._world.project_id, request=request, now_us=self._now_us, lease_us=LEASE_US
        )
        self._run(verb.start())

    def _vary(self) -> None:
        chance, write = self._random, self._store.rows
        if chance.random() < 0.3:
            queues = [name for (name,) in write("SELECT DISTINCT queue_name FROM executions ORDER BY queue_name")]
            limits = (chance.choice((None, 1, 2)), chance.choice((None, 1, 3)))
            self._run(put_queue(self._world.project_id, QueueSpec(chance.choice(queues or ["q"]), *limits)))
        if chance.random() < 0.5:
            # Executions that wait are woken, because seldom is more than one ready.
            write("UPDATE executions SET phase = 'queued', due_at_us = NULL WHERE phase = 'waiting'")
            write(
                "UPDATE executions SET gate = CASE WHEN EXISTS (SELECT 1 FROM queues q WHERE q.name = queue_name AND "
                "(q.total_limit IS NOT NULL OR q.concurrency_limit IS NOT NULL)) THEN 1 ELSE 0 END "
                "WHERE phase = 'queued' AND cancelled_by IS NULL"
            )
        ready = [id for (id,) in write("SELECT id FROM executions WHERE phase = 'queued' AND due_at_us IS NULL")]
        workers = [id for (id,) in write("SELECT id FROM workers ORDER BY id")]
        if chance.random() < 0.2:
            self._set("executions", "python", "9.9", ready)
        if chance.random() < 0.1:
            self._set("executions", "needs_protocol", WORKER_PROTOCOL, ready)
            self._set("workers", "protocol", 1, workers)
        if chance.random() < 0.2:
            self._set("executions", "due_at_us", self._now_us + 1_000_000, ready)
        if chance.random() < 0.2:
            self._set("workers", "deployment_id", "other", workers)
        if chance.random() < 0.4:
            self._set("workers", "capacity", chance.randrange(4), workers)
        while chance.random() < 0.4:
            self._pause()

    def _pause(self) -> None:
        """Pause a target that covers a queued execution. The execution may be marked already, and the pause may have
        ended."""
        queued = self._store.rows(
            "SELECT deployment_id, workflow_id, queue_name, COALESCE(concurrency_key, '') FROM executions "
            "WHERE phase = 'queued' AND deployment_id IS NOT NULL ORDER BY id"
        )
        if not queued:
            return
        deployment_id, workflow_id, queue_name, key = self._random.choice(queued)
        kind = self._random.choice([*PauseKind] if key else [kind for kind in PauseKind if kind is not PauseKind.KEY])
        name = {PauseKind.DEPLOYMENT: deployment_id, PauseKind.WORKFLOW: workflow_id}.get(kind, queue_name)
        what = PauseTarget(self._world.project_id, kind, name, key if kind is PauseKind.KEY else "")
        with suppress(PerdureError):  # no worker has registered the workflow
            self._run(pauses.pause(what=what, until_us=None, note=None, paused_by="sim", now_us=self._now_us).start())
            if self._random.random() < 0.5:
                self._work()
            if self._random.random() < 0.3:
                self._run(pauses.unpause(what=what).start())

    def _work(self) -> None:
        for one in self._run(pauses.pauses_to_work().start()):
            work = {"marking": pauses.mark, "ending": pauses.release}[one.state]
            while self._run(work(number=one.number).start()):
                pass

    def _set(self, table: str, column: str, value: object, ids: list[str]) -> None:
        """Set the column in about half of the rows."""
        for id in ids:
            if self._random.random() < 0.5:
                self._store.rows(f"UPDATE {table} SET {column} = ? WHERE id = ?", value, id)

    def _explain(self, id: str) -> Why:
        verb = why.explained(
            project_id=self._world.project_id,
            execution_id=id,
            times={"now_us": self._now_us, "lease_us": LEASE_US, "push_lease_us": LEASE_US},
        )
        return explain(*self._run(verb.start()), self._now_us)

    def _claim_all(self, deployment_id: str | None) -> set[str]:
        """The workers of a deployment claim to capacity, one after the other."""
        found: set[str] = set()
        for worker_id, capacity, held in self._store.rows(
            "SELECT id, capacity, (SELECT COUNT(*) FROM executions WHERE assigned_to_worker = workers.id AND "
            "phase IN ('running', 'cancelling')) FROM workers WHERE deployment_id IS ? ORDER BY id",
            deployment_id,
        ):
            if capacity > held:
                self._made += 1
                verb = claims.claim(
                    project_id=self._world.project_id,
                    worker_id=worker_id,
                    claim_id=f"~{self._made:09}",
                    capacity=capacity - held,
                    now_us=self._now_us,
                    grace_us=1,
                )
                picked, _, _ = self._run(verb.start())
                found |= {claimed.id for claimed, _ in picked}
        return found

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return SQLiteRun(self._store._writer, self._store._queries).drive(coroutine)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        now_us = self._now_us
        self._store._writer.execute("SAVEPOINT varied")
        try:
            yield
        finally:
            self._store._writer.execute("ROLLBACK TO varied")
            self._store._writer.execute("RELEASE varied")
            self._now_us = now_us
