"""Explanations of executions that wait for an outcome or an act."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Raw

from perdure.wire.agents.budgets import is_balance, topic_of
from perdure.wire.base.wording import NAMED_MAX, cut, decoded_object, listed, moment, question_title, quoted
from perdure.wire.insight.why import Fact, Why, explained
from perdure.wire.insight.why_facts import WaitFacts
from perdure.wire.runs.waits import PendingWait, RecordedWait
from perdure.wire.steering.acts import Action, PendingCall, PendingKind

_SHOWN_MAX: Final = 10


def explain_waiting(facts: WaitFacts) -> Why:
    subject, due_us = facts.subject, facts.subject.due_at_us
    found = [(call, _call(call, facts)) for call in facts.calls]
    things = listed([one.words for call, one in found if call.kind is not PendingKind.TIMER])
    if due_us is not None and not any(
        call.due_at_us == due_us for call in facts.calls if call.kind is not PendingKind.TIMER
    ):
        things = f"{things}, or until {moment(due_us)}" if things else f"its timer at {moment(due_us)}"
    return explained(
        subject.summary,
        f"It has waited since {moment(subject.ready_at_us)} for {things or 'an outcome'}.",
        since_us=subject.ready_at_us,
        until_us=due_us,
        remedy=listed([one.remedy for _, one in found], " or ") or "a cancel; no open call can wake it",
        commands=[command for _, one in found[:NAMED_MAX] for command in one.commands],
        details=[*_details(facts)],
    )


class AwaitedCall(NamedTuple):
    words: str
    remedy: str
    commands: Sequence[str]


def _call(call: PendingCall, facts: WaitFacts) -> AwaitedCall:
    key, wait = call.key or "", facts.waits.get(call.key or "")
    place = f"{facts.subject.summary.id} {shlex.quote(key)}"
    if call.kind is PendingKind.CHILD:
        phase = facts.phases.get(call.child_id or "")
        state = "" if phase is None else f", which is {phase.value}"
        words, remedy = f"its child {call.child_id} ({call.name}){state}", f"the end of child {call.child_id}"
        return AwaitedCall(words, remedy, [f"perdure why {call.child_id}"])
    if wait is None:
        acts = ((Action.FIRE, "--fire"), (Action.TRY, "--try"))
        commands = [f"perdure act {place} {option}" for action, option in acts if action in call.actions]
        if call.kind is not PendingKind.PAUSE:
            return AwaitedCall(f"{call.kind.value} {quoted(key)}", "the timer", commands)
        words = f"try {(call.tries or 0) + 1} of step {quoted(key)} at {moment(call.due_at_us or 0)}"
        return AwaitedCall(words, "the end of the pause", commands)
    words = awaited(wait)
    until = "" if wait.expires_at_us is None else f" (until {moment(wait.expires_at_us)})"
    if wait.is_question:
        return AwaitedCall(f"{words}{until}", words, [*_answering(place, wait)])
    if wait.topic is None:
        return AwaitedCall(f"{words}{until}", "the end of the batch", [])
    holder = _budget_holder(wait)
    if holder is None:
        publish = f"perdure publish {shlex.quote(wait.topic)} --data JSON"
        return AwaitedCall(f"{words}{until}", f"an event of topic {quoted(wait.topic)}", [publish])
    commands = [f"perdure budget show {holder}", f"perdure budget raise {holder} --usd N"]
    return AwaitedCall(f"{words}{until}", "a raise of the budget", commands)


def awaited(wait: PendingWait) -> str:
    if wait.is_question:
        return f"an answer to {quoted(question_title(wait.data) or wait.key)}"
    if wait.topic is None:
        batch_id = wait.batch_id if isinstance(wait, RecordedWait) else ""
        return f"the executions of batch {batch_id} to end"
    holder = _budget_holder(wait)
    if holder is not None:
        return f"more of shared budget {holder}" if is_balance(holder) else f"more budget of execution {holder}"
    where = "" if wait.match is None else f" where {_text(wait.match)}"
    return f"an event of topic {quoted(wait.topic)}{where}"


def _budget_holder(wait: PendingWait) -> str | None:
    prefix = topic_of("")
    return wait.topic.removeprefix(prefix) if wait.topic is not None and wait.topic.startswith(prefix) else None


def _answering(place: str, wait: RecordedWait) -> Iterator[str]:
    form = decoded_object(wait.data).get("_form")
    if not isinstance(form, dict):
        yield f"perdure resume {place} --data JSON"
        return
    fields = form.get("fields")
    keys = [field.get("key") for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
    if "approved" in keys:
        yield f"perdure approve {place} --approve"
        yield f"perdure approve {place} --reject"
    else:
        yield f"perdure approve {place} --data JSON"


def _details(facts: WaitFacts) -> Iterator[Fact]:
    for call in facts.calls[:_SHOWN_MAX]:
        name = call.key or "execution"
        wait = facts.waits.get(name)
        if call.kind is PendingKind.PAUSE:
            yield Fact(name, f"try {call.tries} failed: {cut(call.error or '')}", call.since_us)
        elif call.kind is PendingKind.TIMER:
            yield Fact(name, "wakes it", call.due_at_us)
        else:
            shows = "" if wait is None or wait.data is None else f", shows {_text(wait.data)}"
            yield Fact(name, f"{_call(call, facts).words}{shows}", call.since_us)
    if len(facts.calls) > _SHOWN_MAX:
        yield Fact("calls", f"{len(facts.calls) - _SHOWN_MAX:,} more")


def _text(data: Raw) -> str:
    return cut(bytes(data).decode("utf-8", "replace"))


def explain_held(facts: WaitFacts) -> Why:
    subject = facts.subject
    held = [call for call in facts.calls if call.kind is PendingKind.HELD]
    steps = [call for call in held if call.key is not None and Action.FAIL in call.actions]
    takes_value = next((call.key for call in held if Action.COMPLETE in call.actions), None)
    if steps:
        things = listed([_failure(call) for call in steps])
    else:
        whole = (call.error or "" for call in held if call.key is None)
        things = f"its code failed: {cut(next(whole, subject.error or ''))}"
    return explained(
        subject.summary,
        f"It has been held since {moment(subject.summary.since_us)}, because {things}.",
        since_us=subject.summary.since_us,
        remedy="an act that tries it again or lets it fail"
        if takes_value is None
        else "an act that tries it again, gives the step a value, or lets it fail",
        commands=[*_acts(subject.summary.id, takes_value, fails=steps[0].key if steps else None)],
        details=[Fact(call.key or "code", cut(call.error or ""), call.since_us) for call in held[:_SHOWN_MAX]],
    )


def _failure(call: PendingCall) -> str:
    tries = call.tries or 1
    tried = f" after {tries} tries" if tries > 1 else ""
    return f"step {quoted(call.key or '')} failed{tried} with {cut(call.error or 'an error')}"


def _acts(id: str, takes_value: str | None, fails: str | None) -> Iterator[str]:
    """The keys of steps. `fails` is None if only the execution can fail as a whole."""
    yield f"perdure act {id} --try"
    if takes_value is not None:
        yield f"perdure act {id} {shlex.quote(takes_value)} --complete JSON"
    yield f"perdure act {id} {'' if fails is None else shlex.quote(fails) + ' '}--fail"
