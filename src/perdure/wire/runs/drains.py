"""How a deployment drains: open executions, and the waits before the end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from perdure.wire.base.fields import Int64, Time, Uuid
from perdure.wire.base.operation import Operation
from perdure.wire.base.record import Record
from perdure.wire.base.status import Phase
from perdure.wire.base.wording import moment
from perdure.wire.runs.deployments import Deployment, DeploymentStatus, deployments

_ORDER: Final = list(Phase)


class LastWait(Record, frozen=True, kw_only=True):
    """The waiting or delayed execution whose time comes last."""

    execution_id: Uuid
    workflow_id: str
    key: str | None = None
    due_at_us: Time


class UntimedWaits(Record, frozen=True):
    """Executions in a wait without a time, by kind of wait."""

    answer: Int64 = 0
    event: Int64 = 0
    child: Int64 = 0


class Drain(Record, frozen=True, kw_only=True):
    shown_as = "DrainResponse"

    deployment_id: str
    current: bool
    """New executions go there, so the deployment does not drain."""
    draining_since_us: Time | None = None
    """Null for the current deployment, or if the time is not known."""
    open: dict[str, Int64] = field(default_factory=dict)
    """Open executions by phase."""
    total: Int64
    workers: Int64
    sentence: str = ""
    """The same for people, with the next step."""
    outlook: str = ""
    """The sentence without the counts: what the end waits for."""
    last: LastWait | None = None
    untimed: UntimedWaits = UntimedWaits()
    exact: bool = True
    """False: `last` and `untimed` are of the first 1,000 waiting executions."""


@deployments.get("/api/v1/deployments/{deployment_id}/drain")
class GetDrain(Operation[Drain], frozen=True):
    """How a deployment drains: open executions, and the last waits."""

    deployment_id: str


class IdleExecution(Struct, frozen=True):
    execution_id: str
    workflow_id: str
    key: str | None
    due_at_us: int | None
    waits_for: str | None = None
    """`answer` or `event`. None: a child, or the time in `due_at_us`."""


def drain_of(
    deployment: Deployment, *, workers: int, open: Mapping[str, int], idle: Sequence[IdleExecution], exact: bool
) -> Drain:
    timed = [(one.due_at_us, one) for one in idle if one.due_at_us is not None]
    kinds = Counter(one.waits_for or "child" for one in idle if one.due_at_us is None)
    last = None
    if timed:
        due_at_us, one = max(timed, key=lambda pair: pair[0])
        last = LastWait(execution_id=one.execution_id, workflow_id=one.workflow_id, key=one.key, due_at_us=due_at_us)
    found = Drain(
        deployment_id=deployment.id,
        current=deployment.current,
        draining_since_us=deployment.superseded_at_us,
        open=dict(open),
        total=sum(open.values()),
        workers=workers,
        last=last,
        untimed=UntimedWaits(**kinds),
        exact=exact,
    )
    counts, *rest = _sentences(deployment, found)
    return replace(found, sentence=" ".join([counts, *rest]), outlook=" ".join(rest))


def _sentences(deployment: Deployment, drain: Drain) -> list[str]:
    if not drain.total:
        return ["Nothing is open.", *_next_step(deployment, drain.workers)]
    phases = sorted(drain.open.items(), key=lambda one: _ORDER.index(Phase(one[0])))
    said = [f"{drain.total:,} open: {', '.join(f'{amount:,} {phase}' for phase, amount in phases)}."]
    waits = [
        (drain.untimed.answer, "for an answer without a time limit"),
        (drain.untimed.event, "for an event without a time limit"),
        (drain.untimed.child, "for a child"),
    ]
    for amount, words in waits:
        if amount and drain.exact:
            said.append(f"{amount:,} {'waits' if amount == 1 else 'wait'} {words}.")
        elif amount:
            said.append(f"At least {amount:,} wait {words}.")
    if drain.last is not None:
        said.append(f"The last timed wait ends at {moment(drain.last.due_at_us)}{'' if drain.exact else ' or later'}.")
    if not drain.workers:
        said.append("No worker serves it, so its executions wait for one.")
    return said


def _next_step(deployment: Deployment, workers: int) -> list[str]:
    if deployment.current:
        return ["New executions go there."]
    if deployment.status is DeploymentStatus.RETIRED:
        return ["It is retired."]
    if workers:
        return [f"Stop its {'worker' if workers == 1 else f'{workers:,} workers'}, then retire it."]
    return ["It can be retired."]
