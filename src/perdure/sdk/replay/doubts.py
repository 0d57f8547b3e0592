"""Concurrent calls of one step that differ but look the same: the order of their creation decides.

The order is right for tasks from a list and wrong for tasks from a set. The machine cannot see the difference, so it
reports the doubt.
"""

from collections.abc import Iterator
from contextvars import Context
from typing import Any, Final

from perdure.sdk.payloads.content import Content
from perdure.sdk.payloads.fingerprints import captured_parts, is_vague, split, token, with_tokens, without_numbers
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.task_identity import parse_scopes

_KNOWN_MAX: Final = 64
_Named = tuple[str | None, str | None]


class Doubts:
    __slots__ = ("_base", "_cleared", "_known", "_prune_at", "_told", "last", "logged", "pending", "texts")

    def __init__(self, base: Context) -> None:
        self.texts: list[str] = []
        self.logged = 0
        self.pending: list[DurableCall] = []
        self._base = base
        self._told: set[str | None] = set()
        self.last: dict[str | None, DurableCall] = {}
        """The last call of each name: the next call may have another function."""
        self._known: dict[_Named, list[DurableCall]] = {}
        """Calls with an incomplete fingerprint, by name and fingerprint."""
        self._prune_at = _KNOWN_MAX
        self._cleared: dict[str | None, tuple[int, set[int]]] = {}

    def close(self) -> None:
        """Releases the calls; the texts stay."""
        self._base = Context()
        self.last.clear()
        self._known.clear()
        self.pending.clear()

    def variables(self, of: Context) -> list[str]:
        """A token for each context variable absent at the workflow's beginning."""
        return [token((one.name, value)) for one, value in self._changed(of)]

    def note(self, call: DurableCall, loop: InnerLoop) -> None:
        name, fn = call.name, call.request.fn
        last = self.last.get(name)
        self.last[name] = call
        vague = bool(split(call.fingerprint)[1]) or is_vague(call.request)
        if last is not None and (other := last.request.fn) is not fn:
            vague = vague or getattr(other, "__code__", other) is not getattr(fn, "__code__", fn)
        if len(self.last) + len(self._known) > self._prune_at:
            self._prune(loop)
        if not vague or name in self._told:
            return
        known = self._known.setdefault((name, call.fingerprint), [])
        if last is not None and last not in known and asked(last.fingerprint) == call.fingerprint:
            known.append(last)
        if any(_may_meet(one, call, loop) and not self._same(one, call) for one in known):
            self.tell(call)
        if len(known) >= _KNOWN_MAX:
            del known[0]
        known.append(call)

    def tell(self, call: DurableCall) -> None:
        if call.name not in self._told:
            self._told.add(call.name)
            self.pending.append(call)

    def is_told(self, call: DurableCall) -> bool:
        return call.name in self._told

    def clear(self, call: DurableCall, tasks_made: int) -> None:
        """All calls of the name share the opaque objects of `call` until the code makes another task."""
        self._cleared[call.name] = tasks_made, set(map(id, self.parts(call)[1]))

    def is_cleared(self, call: DurableCall, tasks_made: int) -> bool:
        made, objects = self._cleared.get(call.name, (-1, set()))
        return made == tasks_made and objects.issuperset(map(id, self.parts(call)[1]))

    def describe(self) -> Iterator[tuple[DurableCall, str, str | None]]:
        pending, self.pending = self.pending, []
        for call in pending:
            source = call.source
            text = (
                f"Nothing tells the concurrent calls of {call.kind.value} {call.name!r} apart"
                f"{f' ({source})' if source else ''}, so a replay takes them in the order of their creation. That is "
                "right if their tasks come from a list, and wrong if they come from a set. Give each call an argument "
                "of its own that JSON can hold, such as an id, or a `key=`."
            )
            self.texts.append(text)
            yield call, text, source

    def is_alike(self, unasked: DurableCall, call: DurableCall) -> bool:
        """Whether both calls differ and may have the same fingerprint once the code asks for the first."""
        same = split(unasked.fingerprint)[0] == split(call.fingerprint)[0]
        return same and not self._same(unasked, call)

    def parts(self, call: DurableCall) -> tuple[bytes, list[object]]:
        """The content brought along by a call, and the objects without content."""
        if call.content is None:
            content, step = Content(), call.request
            read = content.read([step.args, step.kwargs, *captured_parts(step.fn)])
            call.content = read, content.opaque
        return call.content

    def _same(self, one: DurableCall, other: DurableCall) -> bool:
        return _equal(self.parts(one), self.parts(other)) and _equal(self._varied(one), self._varied(other))

    def _varied(self, call: DurableCall) -> tuple[bytes, list[object]]:
        content = Content()
        changed = [] if call.variables is None else self._changed(call.variables)
        return content.read([(one.name, value) for one, value in changed]), content.opaque

    def _changed(self, of: Context) -> list[tuple[Any, Any]]:
        base = self._base
        found = [(one, value) for one, value in of.items() if base.get(one, base) is not value and _counts(one, value)]
        return sorted(found, key=lambda pair: pair[0].name)

    def _prune(self, loop: InnerLoop) -> None:
        """Forget outcomes older than every task: no call can meet such outcomes."""
        since = min([loop.turn, *(task.made_at for task in loop.living_tasks()[1:])])

        def may_meet(call: DurableCall) -> bool:
            return call.done_at is None or call.done_at > since

        self.last = {name: call for name, call in self.last.items() if may_meet(call)}
        kept = {named: list(filter(may_meet, calls)) for named, calls in self._known.items()}
        self._known = {named: calls for named, calls in kept.items() if calls}
        self._prune_at = 2 * (len(self.last) + len(self._known)) + _KNOWN_MAX


def asked(fingerprint: str | None) -> str | None:
    """The fingerprint without its token of random numbers."""
    head, tokens = split(fingerprint)
    return with_tokens(head or None, without_numbers(tokens))


def _equal(one: tuple[bytes, list[object]], other: tuple[bytes, list[object]]) -> bool:
    """The same object in both counts as equal."""
    return one[0] == other[0] and [*map(id, one[1])] == [*map(id, other[1])]


def _counts(one: Any, value: object) -> bool:
    """False for our own variables and for a tracing library's span, which differs in each process."""
    return not (one.name.startswith("perdure_") or type(value).__module__.startswith("opentelemetry"))


def _may_meet(earlier: DurableCall, call: DurableCall, loop: InnerLoop) -> bool:
    """Whether `call`, or an enclosing task, existed before the outcome of `earlier`."""
    if earlier.done_at is None:
        return True
    theirs = list(parse_scopes(earlier.key))
    apart = next((scope for scope in parse_scopes(call.key) if scope not in theirs), None)
    made_at = call.made_at if apart is None else loop.task_made_at(apart)
    return made_at < earlier.done_at
