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
