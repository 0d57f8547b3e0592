"""The parts that all explanations have."""

from collections.abc import Iterable

from perdure.wire.why import Fact, Why
from perdure.wire.why_facts import Subject
from perdure.wire.workers import ListedWorker


def explained(
    subject: Subject,
    sentence: str,
    *,
    details: Iterable[Fact] = (),
    commands: Iterable[str] = (),
    since_us: int | None = None,
    until_us: int | None = None,
    remedy: str | None = None,
) -> Why:
    if subject.forked_from is not None:
        step = "" if subject.forked_at_step is None else f" at step {subject.forked_at_step}"
        details = [*details, Fact("forked from", f"{subject.forked_from}{step}")]
    if subject.retried_as is not None:
        sentence += f" It was retried as {subject.retried_as}."
    about = [Fact("workflow", subject.workflow_id), Fact("created", "", subject.created_at_us)]
    if subject.deployment_id is not None:
        about.insert(1, Fact("deployment", subject.deployment_id))
    return Why(
        execution_id=subject.id,
        phase=subject.phase,
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
