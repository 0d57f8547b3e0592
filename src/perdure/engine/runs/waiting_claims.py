"""Open claims that found no work, by the executions that each can take.

Claims wait in the order of their arrival. A claim leaves the list when woken or taken for direct dispatch, so no work
wakes a claim that is about to look. A woken claim that cannot look passes its wake on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import NamedTuple

from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.wire.runs.requests import Claimed, ClaimRequest

PRESENT_SECONDS = 5.0
"""Seconds after a worker's last claim until the worker counts as absent."""

NAMES_MAX = 10_000


class ClaimKind(NamedTuple):
    """The work that a claim may take. Workers of one kind may take the same executions."""

    project_id: str
    deployment_id: str
    python: str
    protocol: int


_Polls = OrderedDict["ClaimPoll", None]
_Kinds = dict[ClaimKind, _Polls]


class ClaimPoll:
    __slots__ = (
        "_future",
        "capacity",
        "claim_id",
        "ended_at",
        "handed",
        "kind",
        "project_id",
        "repeats",
        "settled",
        "superseded",
        "taken",
        "waiting_claim",
        "woken",
        "worker_id",
    )

    def __init__(self, project_id: str, request: ClaimRequest, capacity: int) -> None:
        self.project_id = project_id
        self.capacity = capacity
        self.worker_id = request.worker_id
        self.claim_id = request.claim_id
        self.waiting_claim: WaitingClaim | None = None
        """Known after the claim's first query, like `kind`."""
        self.kind: ClaimKind | None = None
        self.taken = False
        self.woken = False
        """Whether the claim was woken and has not looked since."""
        self.repeats = False
        """The store knows the claim's id, so the claim can take nothing new."""
        self.superseded = False
        """The worker has sent a newer claim and does not read this claim's answer."""
        self.handed: list[Claimed] = []
        self.settled = asyncio.Event()
        self.ended_at: float | None = None
        self._future: asyncio.Future[None] | None = None

    def offer(self, kind: ClaimKind) -> None:
        self.kind = kind
        self.waiting_claim = WaitingClaim(
            worker_id=self.worker_id,
            deployment_id=kind.deployment_id,
            python=kind.python,
            claim_id=self.claim_id,
            capacity=self.capacity,
            protocol=kind.protocol,
        )

    def sleep(self) -> asyncio.Future[None]:
        self._future = asyncio.get_running_loop().create_future()
        return self._future

    def is_recent(self, now: float) -> bool:
        return self.ended_at is None or now < self.ended_at + PRESENT_SECONDS

    def stir(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class WaitingClaims:
    """Waiting claims by kind, the longest waiting first."""

    def __init__(self) -> None:
        self._projects: dict[str, dict[str, _Kinds]] = {}
        self._open: dict[tuple[str, str], dict[ClaimKind, dict[str, ClaimPoll]]] = {}
        """Claims with room that wait or look for work: by project and deployment, kind, and worker."""
        self._hints: Counter[tuple[str, str | None]] = Counter()
        self._passed_on: Counter[ClaimKind] = Counter()
        """The hints that woke enough claims of a kind, less the wakes that met no waiting claim."""

    def open(self, poll: ClaimPoll) -> None:
        kind = poll.kind
        assert kind is not None
        kinds = self._open.setdefault((kind.project_id, kind.deployment_id), {})
        kinds.setdefault(kind, {})[poll.worker_id] = poll

    def close(self, poll: ClaimPoll) -> None:
        self.leave(poll)
        kind = poll.kind
        if kind is None:
            return
        place = (kind.project_id, kind.deployment_id)
        kinds = self._open.get(place, {})
        polls = kinds.get(kind, {})
        if polls.get(poll.worker_id) is poll:
            del polls[poll.worker_id]
            if not polls:
                del kinds[kind]
                if not kinds:
                    del self._open[place]

    def enter(self, poll: ClaimPoll, *, first: bool = False) -> None:
        """Add a waiting claim. `first` puts the claim before all others of its kind."""
        self.open(poll)
        kind = poll.kind
        assert kind is not None
        deployments = self._projects.setdefault(kind.project_id, {})
        polls = deployments.setdefault(kind.deployment_id, {}).setdefault(kind, OrderedDict())
        polls[poll] = None
        if first:
            polls.move_to_end(poll, last=False)

    def leave(self, poll: ClaimPoll) -> bool:
        """Remove a claim. False: the claim was not waiting."""
        kind = poll.kind
        if kind is None or poll not in (polls := self.of(kind)):
            return False
        del polls[poll]
        if not polls:
            deployments = self._projects[kind.project_id]
            del deployments[kind.deployment_id][kind]
            if not deployments[kind.deployment_id]:
                del deployments[kind.deployment_id]
                if not deployments:
                    del self._projects[kind.project_id]
        return True

    def of(self, kind: ClaimKind) -> _Polls:
        return self._projects.get(kind.project_id, {}).get(kind.deployment_id, {}).get(kind) or OrderedDict()

    def take(self, project_id: str, deployment_id: str | None) -> ClaimPoll | None:
        """Take the longest waiting claim of a kind, for the deployment or, with None, for any."""
        deployments = self._projects.get(project_id)
        if not deployments:
            return None
        kinds = next(iter(deployments.values())) if deployment_id is None else deployments.get(deployment_id)
        if not kinds:
            return None
        poll = next(iter(next(iter(kinds.values()))))
        self.leave(poll)
        return poll

    def wake(self, project_id: str, deployment_id: str | None, amount: int = 1) -> bool:
        """Wake claims of each kind in a deployment, with room for `amount` executions. None: in any deployment. False:
        the counts were forgotten, so each worker must look."""
        known = len(self._hints) + len(self._passed_on) <= NAMES_MAX
        if not known:
            self._hints.clear()
            self._passed_on.clear()
        self._hints[project_id, deployment_id] += 1
        deployments = self._projects.get(project_id, {})
        some = deployments if deployment_id is None else (deployment_id,)
        for kind, polls in [one for name in some for one in deployments.get(name, {}).items()]:
            left = amount
            while polls and left > 0:
                poll = next(iter(polls))
                left -= poll.capacity
                self.wake_this(poll)
            if left <= 0:
                self._passed_on[kind] += 1
        return known

    def missed(self, kind: ClaimKind) -> int:
        """Count the hints that woke no waiting claim of this kind. A claim that looked before the last hint must look
        again."""
        project_id, deployment_id, *_ = kind
        hints = self._hints
        return hints[project_id, deployment_id] + hints[project_id, None] - self._passed_on[kind]

    def wake_next(self, poll: ClaimPoll) -> None:
        """Wake a claim that can take what `poll` could. If no claim waits, leave a mark; a claim that is about to wait
        sees it."""
        if poll.kind is not None:
            for other in self.of(poll.kind):
                self.wake_this(other)
                return
            self._passed_on[poll.kind] -= 1

    def wake_this(self, poll: ClaimPoll) -> None:
        if self.leave(poll):
            poll.woken = True
            poll.stir()

    def longest(self) -> list[ClaimPoll]:
        """Return the longest waiting claim of each kind."""
        return [
            next(iter(polls))
            for deployments in self._projects.values()
            for kinds in deployments.values()
            for polls in kinds.values()
        ]

    def any_like(self, poll: ClaimPoll) -> bool:
        """Whether another worker that waits or looks for work could take what `poll` got."""
        mine = poll.kind
        if mine is None:
            return False
        return any(
            len(polls) > (poll.worker_id in polls)
            for kind, polls in self._open.get((mine.project_id, mine.deployment_id), {}).items()
            if kind.python == mine.python and kind.protocol >= mine.protocol
        )

    def deployments(self) -> dict[str, list[str]]:
        return {project_id: sorted(deployments) for project_id, deployments in self._projects.items()}

    def is_waiting(self, worker_id: str) -> bool:
        return any(
            poll.worker_id == worker_id
            for deployments in self._projects.values()
            for kinds in deployments.values()
            for polls in kinds.values()
            for poll in polls
        )
