"""An agent's run as a conversation."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perdure.cli.base.render import cut
from perdure.wire.agents.agent_runs import decoded, user_message
from perdure.wire.agents.agent_steps import (
    ASKED_AGAIN,
    INSTRUCTIONS,
    LIST,
    MODEL,
    SUMMARY,
    ModelAnswer,
    ToolUse,
    model_answer,
    tool_outcome,
    tool_step,
)
from perdure.wire.agents.transcripts import LEAVE, READ, TAKE
from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.times import duration
from perdure.wire.base.wording import call_words

if TYPE_CHECKING:
    from perdure.wire.runs.executions import Execution, LogLine, Row

SHOWN_MAX: Final = 2_000
_STEPS: Final = (Kind.STEP, Kind.STEP_FAILED)
_FIRST: Final = (MODEL, LIST, INSTRUCTIONS)
_EXPIRED: Final = re.compile(r"~(?!code_)(?:.*?_)??((approve|ask_user|call|event)_.*)/timer(?:#\d+)?")
"""Keys of timers of expired questions."""
_UNANSWERED: Final = {
    "approve": "it was not approved in time, so the call was not made",
    "ask_user": "the user did not answer in time",
    "call": "it was not answered in time",
    "event": "no answer came in time",
}


class Line(NamedTuple):
    who: str
    text: str
    note: str = ""
    failed: bool = False


def is_agent_run(rows: list[Row]) -> bool:
    """True even if an agent's first request failed, or another turn took its message."""
    return any(_is_an_agents(row) or _taken_by(row) is not None for row in rows)


def _is_an_agents(row: Row) -> bool:
    if row.kind not in _STEPS:
        return False
    return model_answer(row.name, _value(row)) is not None or (not row.ok and row.name in _FIRST)


def conversation(one: Execution, rows: list[Row], logged: Sequence[LogLine] = ()) -> Iterator[Line]:
    """Adds the log and the refusals after which the model tried again."""
    said = user_message(decoded(bytes(one.payload)))
    if said is not None:
        yield Line("user", _text(said))
    left = {id for row in rows if row.kind is Kind.TRANSCRIPT and row.name == LEAVE for id in _json(row)}
    refusals = deque(line for line in logged if line.text.startswith(ASKED_AGAIN))
    for row in rows:
        # A refusal comes before the repeated request, but the log may show a later time.
        while row.name == MODEL and refusals and refusals[0].at_us <= (row.started_at_us or row.at_us):
            yield _refusal(refusals.popleft())
        yield from _lines(row, left)
    yield from map(_refusal, refusals)
    if one.error is not None:
        yield Line("error", one.error, failed=True)


def spent(rows: list[Row]) -> str:
    answers = [one for row in rows if (one := model_answer(row.name, _value(row))) is not None]
    given, taken = sum(one.input_tokens for one in answers), sum(one.output_tokens for one in answers)
    costs = [Decimal(one.cost) for one in answers if one.cost is not None]
    cost = f", ${sum(costs):f}" if costs else ""
    return f"{len(answers)} request{'' if len(answers) == 1 else 's'} to models, {given} + {taken} tokens{cost}"


def _lines(row: Row, left: set[str]) -> Iterator[Line]:
    """`left` names messages that the run took and gave back."""
    took = "" if row.started_at_us is None else duration(max(0, row.at_us - row.started_at_us))
    tries = f", {row.tries} tries" if row.tries > 1 else ""
    if row.kind is Kind.STEP_FAILED:
        if row.name in _FIRST or tool_step(row.name, row.key) is not None:
            yield Line(row.key or "", str(read_failure(row.value)), f"{took}, is tried again", failed=True)
    elif row.kind is Kind.RESUME:
        yield Line("person", f"{row.key}: {_text(_json(row))}")
    elif row.kind is Kind.TIMER and (expired := unanswered(row.key or "")) is not None:
        yield Line("person", expired, failed=True)
    elif (taker := _taken_by(row)) is not None:
        yield Line("agent", f"answered together with an earlier message, in {taker}; both have the same result")
    elif row.kind is Kind.CHILD and row.key is not None:
        yield Line("agent", f"{row.key} → {_text(_json(row))}", failed=not row.ok)
    elif row.kind is Kind.TRANSCRIPT and row.name == TAKE:
        yield from (Line("user", text, "while it worked") for text in _taken(row, left))
    elif row.kind is Kind.STEP and not row.ok:
        yield Line(row.key or "", str(read_failure(row.value)), f"{took}{tries}", failed=True)
    elif row.kind is Kind.STEP:
        answer = model_answer(row.name, _value(row))
        if row.name == SUMMARY:
            # Older journals hold only the text.
            text = _text(_json(row)) if answer is None else _text("".join(answer.texts))
            yield Line("summary", text, f"{took}{tries}" if answer is None else _spent(answer, f"{took}{tries}"))
            return
        if answer is not None:
            yield from _answer_lines(answer, f"{took}{tries}")
            return
        tool = tool_step(row.name, row.key)
        if tool is not None:
            yield Line("tool", f"{tool.name} → {_text(tool_outcome(bytes(row.value)))}", f"{took}{tries}")
        elif row.name is not None and row.name.startswith("guard."):
            verdict = _json(row) or {}
            said = ": ".join(_text(verdict[one]) for one in ("said", "message") if verdict.get(one)) or "pass"
            yield Line("guard", f"{row.name.removeprefix('guard.')}: {said}")


def unanswered(key: str) -> str | None:
    """None for timers of other waits.

    >>> unanswered("~approve_refund_c1/timer")
    'approve_refund_c1: it was not approved in time, so the call was not made'
    """
    found = _EXPIRED.fullmatch(key)
    return None if found is None else f"{found[1]}: {_UNANSWERED[found[2]]}"


def _refusal(line: LogLine) -> Line:
    return Line("refused", _text(line.text.removeprefix(ASKED_AGAIN)), "the model is asked again")


def _taken_by(row: Row) -> str | None:
    """The run that took this run's message into another turn."""
    if row.kind is not Kind.TRANSCRIPT or row.name != READ or not row.ok:
        return None
    said = _json(row)
    return said.get("taken_by") if isinstance(said, dict) else None


def _taken(row: Row, left: set[str]) -> Iterator[str]:
    """The messages of later turns that a run took and kept."""
    for taken in _json(row) or ():
        if taken["execution_id"] in left:
            continue
        said = user_message(taken["message"])
        yield _text(taken["message"] if said is None else said)


def _spent(answer: ModelAnswer, took: str) -> str:
    """Small costs have no exponent."""
    cost = "" if answer.cost is None else f", ${Decimal(answer.cost):f}"
    return f"{answer.model or 'model'}, {answer.input_tokens} + {answer.output_tokens} tokens{cost}, {took}"


def _answer_lines(answer: ModelAnswer, took: str) -> Iterator[Line]:
    note = _spent(answer, took)
    said = [_text(text) for text in answer.texts if text] + [_called(one) for one in answer.calls]
    for number, text in enumerate(said or ["(nothing)"]):
        yield Line("model", text, note if number == 0 else "")


def _called(use: ToolUse) -> str:
    arguments = use.arguments if isinstance(use.arguments, dict) else {"": use.arguments}
    return f"calls {call_words(use.name, arguments)}"


def _value(row: Row) -> bytes | None:
    return bytes(row.value) if row.ok else None


def _json(row: Row) -> Any:
    return decoded(bytes(row.value))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(text, SHOWN_MAX)
