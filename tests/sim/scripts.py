"""The simulated workflows: small scripts drawn from the seed, as data.

Code that shares nothing reads a script twice: a workflow of `worker.py` runs the script, and `expectation.py` predicts
the result from the script alone.
"""

from random import Random
from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.wire.runs.requests import StartItem

NARROW = "narrow"
"""The queue with limits."""
NARROW_PER_KEY = 1
NARROW_TOTAL = 2
NEWER = "newer"
"""The workflow that an older worker does not know, and that blocks the execution."""


class Step(NamedTuple):
    """A step fails in the first `fails` of at most `tries` tries. A fragile step fails until `fragile` retries of its
    workflow; a step that `kills` ends its worker so many times, and poison always does."""

    key: str
    takes: float = 0.1
    fails: int = 0
    tries: int = 1
    pause: float = 0.5
    caught: bool = False
    fragile: int = 0
    poison: bool = False
    kills: int = 0
    holds: bool = False
    """The execution is held once the step's tries are used up."""
    cancels: bool = False
    """A caller cancels the execution while the step's outcome is on its way."""


class Sleep(NamedTuple):
    key: str
    seconds: float


class Event(NamedTuple):
    """Wait for an event, which must carry `number` if given."""

    key: str
    topic: str
    number: int | None = None
    timeout: float | None = None


class Publish(NamedTuple):
    key: str
    topic: str
    numbers: tuple[int, ...]


class Suspended(NamedTuple):
    """Wait for an answer."""

    key: str
    timeout: float | None = None


class AnswerParent(NamedTuple):
    key: str
    step_key: str


class Child(NamedTuple):
    key: str
    script: "Script"


class Together(NamedTuple):
    """Branches run side by side; the first failure ends all."""

    branches: "tuple[tuple[Op, ...], ...]"


Op = Step | Sleep | Event | Publish | Suspended | AnswerParent | Child | Together


class Script(NamedTuple):
    name: str
    ops: tuple[Op, ...]
    workflow: str = "plain"
    """A waiting, cancelled `wakes` is woken once, to clean up."""
    retries: int = 0
    cleanup: bool = False
    queue: str | None = None
    concurrency_key: str | None = None
    timeout: int | None = None
    returns: bool = False
    """The code does nothing more than return the outcome of the last operation, a step."""


def flat(ops: tuple[Op, ...]) -> list[Op]:
    """All operations, including branches but not children."""
    found: list[Op] = []
    for op in ops:
        found.append(op)
        if isinstance(op, Together):
            for branch in op.branches:
                found.extend(flat(branch))
    return found


def is_poison(script: Script) -> bool:
    return any(isinstance(op, Step) and op.poison for op in flat(script.ops))


def holding(script: Script, random: Random) -> Script:
    """A script whose hopeless steps partly hold the execution."""

    def changed(op: Op) -> Op:
        if isinstance(op, Together):
            return Together(tuple(tuple(changed(one) for one in branch) for branch in op.branches))
        if isinstance(op, Child):
            return op._replace(script=holding(op.script, random))
        if isinstance(op, Step) and op.tries <= op.fails and random.random() < 0.7:
            return op._replace(holds=True)
        return op

    return script._replace(ops=tuple(changed(op) for op in script.ops))


def start_item(script: Script, *, key: str | None = None) -> StartItem:
    """The request that starts a script, with its name as payload."""
    return StartItem(
        workflow_id=script.workflow,
        payload=Raw(msgspec.json.encode(script.name)),
        key=key,
        queue_name=script.queue,
        concurrency_key=script.concurrency_key,
        run_timeout_seconds=script.timeout,
    )


class Writer:
    """Draws scripts."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._topics = 0

    def script(self, name: str, depth: int = 0) -> Script:
        random = self._random
        ops: list[Op] = []
        for n in range(random.randint(1, 4 if depth else 5)):
            ops.extend(self._ops(f"{n}", name, depth))
        retries = 0
        if random.random() < 0.25:
            retries = random.randint(1, 2)
            at = random.randint(0, len(ops))
            fragile = Step("fragile", takes=0.05, fragile=retries, tries=random.randint(1, 2), pause=0.2)
            # As many are tried again as there are: two that fail together must not use up one try each.
            ops.insert(at, Together(((fragile,), (fragile._replace(key="fragile2"),))) if at % 2 else fragile)
        workflow = random.choices(("plain", "wakes", NEWER), (62, 30, 8))[0]
        narrow = random.random() < 0.35
        return Script(
            name,
            tuple(ops),
            workflow,
            retries,
            cleanup=workflow == "wakes" or random.random() < 0.3,
            queue=NARROW if narrow else None,
            concurrency_key=random.choice((None, "a", "b")) if narrow else None,
            timeout=random.randint(3, 8) if random.random() < 0.05 else None,
            returns=isinstance(ops[-1], Step),
        )

    def poison(self, name: str) -> Script:
        before = (Step("before"),) if self._random.random() < 0.5 else ()
        return Script(name, (*before, Step("poison", poison=True)))

    def costly(self, name: str) -> Script:
        """The script loses more workers than poison may, but gets on in between."""
        return Script(name, tuple(Step(f"step{n}", takes=0.05, kills=2) for n in range(3)))

    def returned(self, name: str) -> Script:
        """The last step and the end come in one report, unless the cancel comes first."""
        return Script(name, (Step("before"), Step("last", takes=0.3, cancels=True)), returns=True)

    def waits_again(self, name: str) -> Script:
        """Two waits on one topic; a fork between the two must not take the first event again."""
        return Script(name, (Event("one", name), Step("between"), Event("two", name), Step("last")))

    def _ops(self, at: str, name: str, depth: int) -> list[Op]:
        random = self._random
        kind = random.random()
        if kind < 0.42:
            return [self._step(at)]
        if kind < 0.50:
            return [Sleep(f"sleep{at}", random.choice((0.0, 0.3, 1.5, 6.0, 15.0)))]
        if kind < 0.64:
            return [self._event(f"event{at}", self._topic())]
        if kind < 0.70:
            return [Publish(f"publish{at}", f"t{random.randint(0, 3)}", tuple(range(random.randint(1, 2))))]
        if kind < 0.76:
            return [Suspended(f"ask{at}", random.choice((None, None, 4.0)))]
        if depth == 0 and kind < 0.88:
            return [Child(f"child{at}", self.script(f"{name}.{at}", 1))]
        if depth == 0 and kind < 0.92:
            # The child answers what the parent asks, perhaps before it asks.
            answer = (*self._some_steps(), AnswerParent("answer", f"asked{at}"))
            pause: tuple[Op, ...] = (Step(f"first{at}", takes=random.choice((0.05, 2.0))),)
            return [
                Together(((Child(f"child{at}", Script(f"{name}.{at}", answer)),), (*pause, Suspended(f"asked{at}"))))
            ]
        branches: list[tuple[Op, ...]] = []
        for n in range(random.randint(2, 3)):
            choice = random.random()
            key = f"{at}_{n}"
            if choice < 0.5:
                branches.append((self._step(key), Step(f"then{key}")))
            elif choice < 0.65:
                branches.append((Sleep(f"sleep{key}", random.choice((0.2, 3.0, 12.0))),))
            elif choice < 0.9 or depth:
                branches.append((self._event(f"event{key}", self._topic(alone=True)),))
            else:
                branches.append((Child(f"child{key}", self.script(f"{name}.{key}", 1)),))
        return [Together(tuple(branches))]

    def _some_steps(self) -> tuple[Op, ...]:
        return tuple(self._step(f"s{n}") for n in range(self._random.randint(0, 1)))

    def _topic(self, *, alone: bool = False) -> str:
        if alone:
            self._topics += 1
            return f"own{self._topics}"
        return f"t{self._random.randint(0, 3)}"

    def _event(self, key: str, topic: str) -> Event:
        random = self._random
        return Event(key, topic, random.choice((None, 0, 1)), random.choice((None, None, None, 0.5, 4.0)))

    def _step(self, at: str) -> Step:
        random = self._random
        kind = random.random()
        takes = random.choice((0.01, 0.05, 0.3, 0.3, 1.0, 2.5))
        if kind < 0.7:
            return Step(f"step{at}", takes)
        tries = random.randint(2, 4)
        pause = random.choice((0.1, 0.5, 2.0, 14.0))
        if kind < 0.89:
            return Step(f"step{at}", takes, fails=random.randint(1, tries - 1), tries=tries, pause=pause)
        return Step(f"step{at}", takes, fails=tries, tries=tries, pause=0.2, caught=random.random() < 0.5)
