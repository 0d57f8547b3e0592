"""One query a second for all waits of this process, because hints from other servers may be lost."""

import asyncio
import random
from collections.abc import Iterable

from perdure.engine.base.core import Core
from perdure.engine.outside.dispatch import Dispatcher
from perdure.engine.runs.claims import Claims
from perdure.store.verbs.runs.fallback_poller import Awaited, poll_awaited

BLIND_SECONDS_MAX = 1.0
"""Seconds, the longest pause while hints do not arrive."""
PAUSE_SECONDS_MIN = 0.05
LOOK_SHARE = 10
"""While hints arrive, queries take at most 1/10 of the time."""


class FallbackPoller:
    """Keeps the last results, because only changes notify."""

    def __init__(self, core: Core, claims: Claims, dispatcher: Dispatcher) -> None:
        self._core = core
        self._claims = claims
        self._dispatcher = dispatcher
        self._journals: dict[str, tuple[int, int]] = {}
        self._topics: dict[tuple[str, str], int] = {}
        self._streams: dict[tuple[str, str], int] = {}
        self._changed: dict[tuple[str, str], int] = {}

    async def look(self) -> float:
        core, claims, dispatcher = self._core, self._claims, self._dispatcher
        await asyncio.sleep(PAUSE_SECONDS_MIN)
        pause = core.settings.poll_seconds
        if not core.store.hints_up:
            pause = min(pause, BLIND_SECONDS_MAX)
        pause *= random.uniform(0.5, 1.0)
        notifier = core.notifier
        topics = _by_project(notifier.waited_at("topic"))
        awaited = Awaited(
            ends=core.end_listeners.awaited(),
            journals=[id for _, id in notifier.waited_at("written")],
            topics=topics,
            streams=_by_project(notifier.waited_at("stream")),
            workers=claims.present(),
            deployments=_merged(claims.waiting_for(), dispatcher.waiting_for()),
        )
        if not any(awaited):
            return pause
        now = asyncio.get_running_loop().time
        started = now()
        found = await core.store.read(poll_awaited(awaited=awaited))
        if core.store.hints_up:  # spare a slow database
            pause = max(pause, (now() - started) * LOOK_SHARE)
        for project_id, finished in found.ended:
            core.end_listeners.found(project_id, finished)
        # A new waiter may have read before the last change: rows that are new here also notify.
        journals = {id: (seq, n) for id, seq, n in found.journals}
        for id, at in journals.items():
            if self._journals.get(id) != at:
                notifier.notify(("written", id))
        self._journals = journals
        last = {(project_id, topic): seq for project_id, topic, seq in found.topics}
        for (project_id, topic), number in last.items():
            if self._topics.get((project_id, topic)) != number:
                notifier.notify(("topic", project_id, topic))
        self._topics = last
        streams = {(project_id, id): amount for project_id, id, amount in found.streams}
        for (project_id, id), amount in streams.items():
            if self._streams.get((project_id, id)) != amount:
                notifier.notify(("stream", project_id, id))
        self._streams = streams
        changed = {(worker_id, id): seq for worker_id, id, seq in found.changed}
        for (worker_id, id), seq in changed.items():
            if self._changed.get((worker_id, id)) != seq:
                claims.note_changed(worker_id, id)
        self._changed = changed
        claims.wake_for(set(found.ready), set(found.unacknowledged))
        for project_id, deployment_id in found.ready:
            dispatcher.ready(project_id, deployment_id)
        return pause


def _by_project(keys: Iterable[tuple[str, ...]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for _, project_id, name in keys:
        found.setdefault(project_id, []).append(name)
    return found


def _merged(some: dict[str, list[str]], others: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: sorted({*some.get(key, ()), *others.get(key, ())}) for key in some.keys() | others.keys()}
