"""Forks, retries and acts at random moments of a run.

The hands draw from a separate source of chance, so that a seed lives the same life without hands.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw
from tests.sim import scripts
from tests.sim.audit import Violation

from perdure.wire.base.errors import BadValue, Conflict, NotFound, PerdureError
from perdure.wire.base.operation import Listed
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.steering.acts import Acted, Action, ActOnExecution, GetPending, PendingCall, PendingKind
from perdure.wire.steering.forks import Edits, Fork, ForkExecution, RetryExecution

if TYPE_CHECKING:
    from tests.sim.world import World

REFUSALS = (
    ("was asked to cancel before that", "forks after a cancel"),
    ("Cancel it before you retry it", "retries of what is open"),
    ("was retried as", "second retries"),
)
"""Refusals of forks and retries, with the names for counting."""


class Hands:
    """An operator who forks and retries over the same network, and asks again until he knows."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"hands {world.seed}")
        self._asked = 0
        self._acting: set[str] = set()
        self.open = 0
        """Requests that have no answer yet."""

    def plan(self, until_us: int) -> None:
        for _ in range(self._random.randint(3, 6)):
            self._at(self._random.randrange(2_000_000, until_us), final=False)
        for _ in range(self._random.randint(2, 4)):
            self._at(self._random.randrange(8_000_000, until_us + 10_000_000), final=True)

    def hires_old(self) -> bool:
        """Whether the next worker's release does not know forks."""
        return self._random.random() < 0.25

    def _at(self, us: int, *, final: bool) -> None:
        self.open += 1  # until it is decided, the run is not over
        self._world.loop.call_at_us(us, self._choose, final)

    def _choose(self, final: bool) -> None:
        self.open -= 1
        ids = [id for id, seen in self._world.audit.seen.items() if (seen.phase in FINAL) is final and self._fits(id)]
        if not ids:
            return
        seen = self._world.audit.seen
        some = [self._random.choice(ids) for _ in range(4)]
        id = max(some, key=lambda id: (seen[id].phase is Phase.FAILED, len(self._world.audit.steps(id))))
        if final and self._random.random() < 0.7:
            self._send("retry", self._retry(id))
        else:
            self._send("fork", self._fork(id))

    def _fits(self, id: str) -> bool:
        """The fork of a child is a root, so its code has no parent to answer."""
        ops = scripts.flat(self._world.script_of(Raw(self._world.audit.payload(id))).ops)
        return not any(isinstance(op, scripts.AnswerParent) for op in ops)

    def _fork(self, id: str) -> ForkExecution:
        random, steps = self._random, self._world.audit.steps(id)
        fresh_keys = random.random() < 0.2
        if not steps or random.random() < 0.1:
            return ForkExecution(id, fresh_keys=fresh_keys)
        key = max(random.choice(list(steps)), random.choice(list(steps)), key=lambda one: steps[one])
        before = [one for one, (_, good) in steps.items() if 0 < good < steps[key][0]]
        if not before or random.random() < 0.7:
            return ForkExecution(id, from_step=key, fresh_keys=fresh_keys)
        edited = random.choice(before)
        edits = Edits(steps={edited: Raw(msgspec.json.encode(f"edited:{edited}"))})
        return ForkExecution(id, random.choice((key, None)), edits, fresh_keys=fresh_keys)

    def _retry(self, id: str) -> RetryExecution:
        random, steps = self._random, self._world.audit.steps(id)
        kind = random.random()
        if kind < 0.15 and steps:
            return RetryExecution(id, from_step=random.choice(list(steps)))
        return RetryExecution(id, from_end=kind > 0.85)

    def _send(self, name: str, request: ForkExecution | RetryExecution) -> None:
        self.open += 1
        key = f"hands {self._number()}"

        def done(outcome: object) -> None:
            self.open -= 1
            if isinstance(outcome, Fork):
                self._made(name, outcome)
            elif isinstance(outcome, PerdureError):
                self._refused(name, request.execution_id, outcome)
            else:
                raise Violation("forks", f"{name} of {request.execution_id} was answered {outcome!r}")

        self._world.call_once(name, request, key, done)

    def _made(self, name: str, fork: Fork) -> None:
        self._world.log(name, fork.forked_from, fork.forked_at_step, fork.execution_id, fork.kept_rows)
        if fork.execution_id not in self._world.audit.forks:
            raise Violation("I1 accepted is kept", f"{name} was answered {fork.execution_id}, which does not exist")
        if self._world.chaos and self._random.random() < 0.1:
            self._world.cancel(fork.execution_id)

    # --- acts --------------------------------------------------------------------------------------------------------

    def holding(self, script: scripts.Script) -> scripts.Script:
        return scripts.holding(script, self._random)

    def operate(self) -> None:
        """Act on what is pending: now and then while all goes wrong, and on all that is held in the quiet time."""
        for id, seen in self._world.audit.seen.items():
            if seen.phase in FINAL or id in self._acting:
                continue
            if self._random.random() < self._zeal(seen.phase is Phase.HELD):
                self._acting.add(id)
                self._look(id)

    def _zeal(self, held: bool) -> float:
        if not self._world.chaos:
            return 1.0 if held else 0.0
        return 0.5 if held else 0.3

    def _look(self, id: str) -> None:
        def listed(outcome: object) -> None:
            acts = [] if not isinstance(outcome, Listed) else self._acts(id, outcome)
            if acts:
                self._act(self._random.choice(acts))
            else:
                self._acting.discard(id)

        self._world.call_once("pending", GetPending(id), f"pending {self._number()}", listed)

    def _acts(self, id: str, pending: Listed[PendingCall]) -> list[ActOnExecution]:
        acts: list[ActOnExecution] = []
        for call in pending.items:
            if call.kind is PendingKind.HELD:
                given = Raw(msgspec.json.encode(f"given:{call.key}"))
                acts.append(ActOnExecution(id, Action.COMPLETE, call.key, given))
                acts.append(ActOnExecution(id, Action.TRY, self._random.choice((call.key, None))))
                acts.append(ActOnExecution(id, Action.FAIL, self._random.choice((call.key, None))))
            elif call.kind is PendingKind.CHILD:
                acts.append(
                    ActOnExecution(id, Action.COMPLETE, call.key, Raw(msgspec.json.encode(f"given:{call.key}")))
                )
                acts.append(ActOnExecution(id, Action.FAIL, call.key))
            elif call.kind is PendingKind.PAUSE:
                acts.append(ActOnExecution(id, Action.TRY, call.key))
                acts.append(
                    ActOnExecution(id, Action.COMPLETE, call.key, Raw(msgspec.json.encode(f"given:{call.key}")))
                )
            elif call.kind is PendingKind.TIMER and not (call.key or "").endswith("timeout"):
                acts.append(ActOnExecution(id, Action.FIRE, call.key))
            elif call.kind in (PendingKind.EVENT, PendingKind.ANSWER):
                acts.append(ActOnExecution(id, Action.TIME_OUT, call.key))
        return acts

    def _act(self, request: ActOnExecution) -> None:
        self.open += 1

        def done(outcome: object) -> None:
            self.open -= 1
            self._acting.discard(request.execution_id)
            if isinstance(outcome, Acted):
                self._world.count(f"acts: {request.action}")
            elif isinstance(outcome, Conflict | NotFound | BadValue):
                self._world.count("acts that came late")
            else:
                raise Violation("acts", f"{request} was answered {outcome!r}")

        self._world.call_once("act", request, f"act {self._number()}", done)

    def _number(self) -> int:
        self._asked += 1
        return self._asked

    def _refused(self, name: str, id: str, error: PerdureError) -> None:
        for words, what in REFUSALS:
            if isinstance(error, Conflict) and words in str(error):
                self._world.count(f"refused: {what}")
                return
        raise Violation("forks", f"{name} of {id} was refused: {error!r}")
