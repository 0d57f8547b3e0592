"""The network between workers, callers and the server loses, doubles, delays and reorders messages.

A call is answered at most once, with a reply struct or a wire error. Its caller gives up after a while with
`UnknownOutcome`, whatever has become of the request. Doubled or late messages reach the server all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome
from perdure.wire.runs.requests import Complete, Fail, ReportRequest

if TYPE_CHECKING:
    from tests.sim.world import World

RAW = re.compile(r"<msgspec.Raw object at 0x\w+>")
Respond = Callable[[object], None]


LATE_LAST_WORD_US = 7_000_000
LATE_BEAT_US = 2_500_000
LATE_CLAIM_US = 15_000_000
LATE_REGISTRATION_US = 40_000_000


class Sender(Protocol):
    """A sender: a worker or a caller outside."""

    name: str

    def later(self, us: int, action: Callable[[], None]) -> None: ...


class Weather(NamedTuple):
    """The network's state: probabilities, and the delay of the latest messages."""

    lose_request: float
    lose_reply: float
    double: float
    late: float
    late_us: int


CALM = Weather(0.0, 0.0, 0.0, 0.0, 0)


class Cut(NamedTuple):
    """A worker beyond the server's reach, which perhaps does not hear either."""

    until_us: int
    requests: bool


NOT_CUT = Cut(0, False)


class Pending:
    """An unanswered call."""

    __slots__ = ("answered", "name", "respond", "sender")

    def __init__(self, sender: Sender, name: str, respond: Respond) -> None:
        self.sender = sender
        self.name = name
        self.respond = respond
        self.answered = False

    def answer(self, outcome: object) -> None:
        if not self.answered:
            self.answered = True
            self.respond(outcome)


class Network:
    """Carries calls to whatever server there is at the time."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.cuts: dict[Sender, Cut] = {}

    def call(self, sender: Sender, name: str, request: object, respond: Respond, *, timeout_us: int) -> Pending:
        world, weather, random = self.world, self.weather, self.world.random
        pending = Pending(sender, name, respond)
        if world.tracing:
            world.log(f"{sender.name} sends {name}", brief(request))
        sender.later(timeout_us, lambda: pending.answer(UnknownOutcome(f"{name}: no answer")))
        cut = self.cuts.get(sender, NOT_CUT)
        if random.random() < weather.lose_request or (cut.requests and world.loop.us < cut.until_us):
            world.count("lost requests")
        else:
            us = self._delay_us()
            if weather.late and random.random() < last_word(request, world.focus):
                # The worst moment: the last word of an attempt is on its way for longer than its worker may be silent.
                us = LATE_LAST_WORD_US + random.randrange(6_000_000)
                world.freeze(sender)
            world.loop.call_at_us(world.loop.us + us, self._arrive, name, request, pending)
        if random.random() < weather.double:
            world.count("doubled requests")
            late_us = self._delay_us() + random.randrange(weather.late_us)
            if name == "register" and world.focus == "late registrations":
                late_us += random.randrange(LATE_REGISTRATION_US)
            world.loop.call_at_us(world.loop.us + late_us, self._arrive, name, request, None)
        return pending

    def _delay_us(self) -> int:
        random, weather = self.world.random, self.weather
        if random.random() < weather.late:
            return random.randrange(weather.late_us)
        return random.randrange(200, 20_000)

    def _arrive(self, name: str, request: object, pending: Pending | None) -> None:
        if pending is None:
            self.world.server.take(name, request, lambda outcome: None)
        elif not self.world.server.take(name, request, lambda outcome: self._reply(pending, outcome)):
            self._reply(pending, Unavailable("connection refused"))

    def _reply(self, pending: Pending, outcome: object) -> None:
        world = self.world
        lose = self.weather.lose_reply
        if pending.name == "claim" and world.focus == "lost claims":
            lose *= 3
        if world.random.random() < lose or world.loop.us < self.cuts.get(pending.sender, NOT_CUT).until_us:
            world.count("lost replies")
            if not isinstance(outcome, PerdureError):
                world.audit.reply_lost(pending.name, outcome)
            return
        if world.tracing:
            world.log(f"{pending.sender.name} is answered {pending.name}", brief(outcome))
        us = self._delay_us()
        late = 0.5 if world.focus == "late beats" and self.weather.late else self.weather.late
        if pending.name in ("beat", "register") and world.random.random() < late:
            us = world.random.randrange(LATE_BEAT_US)
        elif pending.name == "claim" and world.focus == "late claims" and world.random.random() < 6 * self.weather.late:
            us = world.random.randrange(LATE_CLAIM_US)
        pending.sender.later(us, lambda: pending.answer(outcome))


def last_word(request: object, focus: str | None) -> float:
    """The chance that a message is held up because it ends an execution: failures are rare, and so more likely."""
    if not isinstance(request, ReportRequest):
        return 0.0
    ends = {type(item.end) for item in request.items}
    if focus == "last words":
        return 0.8 if ends & {Complete, Fail} else 0.0
    return 0.5 if Fail in ends else 0.06 if Complete in ends else 0.0


def brief(message: object) -> str:
    """A message in a line of the trace."""
    if isinstance(message, PerdureError):
        return repr(message)
    items = getattr(message, "items", None)
    if items is None:
        return RAW.sub("…", str(message))
    text = "; ".join(
        f"{getattr(item, 'execution_id', None) or getattr(item, 'id', '')} "
        + " ".join(
            f"{name}={getattr(item, name)}"
            for name in ("attempt", "number", "seen", "base", "entries", "end", "lost", "ended", "more", "accepted")
            if hasattr(item, name)
        )
        + f" rows={[(row.seq, row.kind.value, row.key) for row in getattr(item, 'rows', ())]}"
        for item in items
    )
    return RAW.sub("…", text)
