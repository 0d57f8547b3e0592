"""The parts that all explanations have."""

from collections.abc import Iterable

from perdure.wire.summaries import ExecutionSummary
from perdure.wire.why import Fact, Why
from perdure.wire.workers import ListedWorker


def explained(
    summary: ExecutionSummary,
    sentence: str,
    *,
    details: Iterable[Fact] = (),
    commands: Iterable[str] = (),
    since_us: int | None = None,
    until_us: int | None = None,
    remedy: str | None = None,
) -> Why:
    if summary.forked_from is not None:
        step = "" if summary.forked_at_step is None else f" at step {summary.forked_at_step}"
        details = [*details, Fact("forked from", f"{summary.forked_from}{step}")]
    if summary.retried_as is not None:
        sentence += f" It was retried as {summary.retried_as}."
    about = [Fact("workflow", summary.workflow_id), Fact("created", "", summary.created_at_us)]
    if summary.deployment_id is not None:
        about.insert(1, Fact("deployment", summary.deployment_id))
    return Why(
        execution_id=summary.id,
        phase=summary.phase,
        sentence=sentence,
        since_us=since_us,
        until_us=until_us,
        remedy=remedy,
        commands=[*commands],
        facts=[*details, *about],
    )


def worker_words(worker: ListedWorker) -> str:
    python = "" if worker.python is None else f", Python {worker.python}"
    about = f"{worker.id} ({worker.kind.value}, {worker.state.value}{python})"
    return f"{about}, runs {worker.running:,} of {worker.capacity:,}"
