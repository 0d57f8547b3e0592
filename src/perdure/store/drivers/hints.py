"""The message by which a server sends hints to other servers.

Ends travel without results, which the receiver can query; counts and due times are not sent. A message too long for
NOTIFY becomes `everything`.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from perdure.store.base.interface import (
    Changed,
    EndedElsewhere,
    EndNotice,
    Everything,
    Hint,
    KeyDeleted,
    Published,
    Ready,
    Streamed,
    UserChanged,
    Written,
)

PAYLOAD_BYTES_MAX: Final = 7_900
"""PostgreSQL refuses 8,000."""
GATHERED_MAX: Final = 1_000


class HintMessage(msgspec.Struct, omit_defaults=True, rename={"server": "s", "changed": "news"}):
    """Older servers ignore fields of newer servers."""

    server: str
    beat: int | None = None
    ready: list[str] = []
    """Projects."""
    ready_in: list[tuple[str, str | None]] = []
    """Projects with deployments."""
    ended: dict[str, list[str]] = {}
    """Executions by project. An execution here is not in `written`."""
    written: list[str] = []
    """Executions."""
    changed: dict[str, list[str]] = {}
    """Executions by worker."""
    published: list[tuple[str, str]] = []
    """Projects and topics."""
    streamed: list[tuple[str, str]] = []
    """Projects and root executions."""
    keys: list[str] = []
    users: list[str] = []
    everything: bool = False

    def hints(self) -> list[Hint]:
        named = {project_id for project_id, _ in self.ready_in}
        hints: list[Hint] = [Ready(project_id, deployment_id) for project_id, deployment_id in self.ready_in]
        hints.extend(Ready(project_id, None) for project_id in self.ready if project_id not in named)
        for project_id, ids in self.ended.items():
            hints.extend(EndedElsewhere(project_id, id) for id in ids)
            hints.extend(Written(id) for id in ids)
        hints.extend(Written(id) for id in self.written)
        for worker_id, ids in self.changed.items():
            hints.extend(Changed(worker_id, id) for id in ids)
        hints.extend(Published(project_id, topic) for project_id, topic in self.published)
        hints.extend(Streamed(project_id, id) for project_id, id in self.streamed)
        hints.extend(KeyDeleted(id) for id in self.keys)
        hints.extend(UserChanged(id) for id in self.users)
        if self.everything:
            hints.append(Everything())
        return hints


_SENT: Final[dict[type[Hint], tuple[str, ...]]] = {
    Written: ("written", "execution_id"),
    EndNotice: ("ended", "project_id", "execution_id"),
    Ready: ("ready_in", "project_id", "deployment_id"),
    Changed: ("changed", "worker_id", "execution_id"),
    Published: ("published", "project_id", "topic"),
    Streamed: ("streamed", "project_id", "root_id"),
    KeyDeleted: ("keys", "key_id"),
    UserChanged: ("users", "user_id"),
}
"""Kinds of hint with the field of `HintMessage`, and the fields of the hint to put there."""


class Gathered:
    def __init__(self) -> None:
        self._hints: dict[tuple[Any, ...], None] = {}
        self.everything = False
        self.beat: int | None = None

    def __bool__(self) -> bool:
        return bool(self._hints) or self.everything or self.beat is not None

    def add(self, hints: Iterable[Hint]) -> bool:
        """True if a hint was new."""
        found = self._hints
        before = len(found)
        for hint in hints:
            field, *names = _SENT.get(type(hint), ("",))
            if field:
                found[field, *[getattr(hint, name) for name in names]] = None
        more = len(found) > before
        if len(found) > GATHERED_MAX:
            found.clear()
            self.everything = True
        return more

    def encode(self, server: str) -> str:
        message = HintMessage(server, beat=self.beat, everything=self.everything)
        if not self.everything:
            for field, *names in self._hints:
                into = getattr(message, field)
                if isinstance(into, dict):
                    into.setdefault(names[0], []).append(names[1])
                else:
                    into.append(names[0] if len(names) == 1 else tuple(names))
            message.ready = sorted({project_id for project_id, _ in message.ready_in})
            if message.ended:
                ended = {id for ids in message.ended.values() for id in ids}
                message.written = [id for id in message.written if id not in ended]
        text = msgspec.json.encode(message)
        if len(text) > PAYLOAD_BYTES_MAX:
            text = msgspec.json.encode(HintMessage(server, beat=self.beat, everything=True))
        return text.decode()


_decoder = msgspec.json.Decoder(HintMessage)


def decode(payload: str) -> HintMessage | None:
    """None for a foreign NOTIFY."""
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError:
        return None
