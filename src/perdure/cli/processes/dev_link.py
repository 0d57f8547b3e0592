"""The server's end of the pipes to `perdure dev`, which starts the server and its workers.

The server asks on standard output: `{"ask": 7, "kill": "WORKER"}` or `{"ask": 8, "chaos": 20}`. Standard input brings
`{"answer": 7, …}`, `{"state": {…}}` after each change, and `{"ran": [[execution, attempt, key, begin], …]}`.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from perdure.server.process.dev import DevStatus, Killed
from perdure.store.base.interface import Store
from perdure.store.verbs.base.bodies import Body, count_rerun
from perdure.wire.base.errors import Unavailable, from_code

ANSWER_SECONDS: Final = 10.0
UNCHECKED_MAX: Final = 1_000


class DevLink:
    """`say` writes a line to `perdure dev`."""

    def __init__(self, store: Store, say: Callable[[dict[str, Any]], None]) -> None:
        self._store = store
        self._say = say
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._state = DevStatus()
        self._unchecked: list[Body] = []
        self._checking = asyncio.Lock()
        self._bodies = 0
        self._rerun = 0
        self._check: asyncio.Task[None] | None = None

    def hear(self, line: bytes) -> None:
        said = json.loads(line)
        if "state" in said:
            self._state = msgspec.convert(said["state"], DevStatus)
        for one in said.get("ran", ()):
            self._unchecked.append(Body(*one))
        if len(self._unchecked) > UNCHECKED_MAX and (self._check is None or self._check.done()):
            self._check = asyncio.get_running_loop().create_task(self._check_bodies())
        asked = self._asked.pop(said.get("answer", 0), None)
        if asked is not None and not asked.done():
            asked.set_result(said)

    async def status(self) -> DevStatus:
        await self._check_bodies()
        return msgspec.structs.replace(self._state, bodies=self._bodies, steps_rerun=self._rerun)

    async def kill(self, worker_id: str | None) -> Killed:
        return msgspec.convert((await self._ask(kill=worker_id))["killed"], Killed)

    async def set_chaos(self, every_seconds: float | None) -> DevStatus:
        await self._ask(chaos=every_seconds)
        return await self.status()

    async def _ask(self, **what: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._say({"ask": number, **what})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                said = await self._asked[number]
        except TimeoutError:
            self._asked.pop(number, None)
            raise Unavailable("`perdure dev` does not answer; try again.") from None
        if "problem" in said:
            raise from_code(said["problem"]["code"], said["problem"]["error"])
        return said

    async def _check_bodies(self) -> None:
        """A rerun body whose own outcome is recorded does not count: the verb compares the times at which bodies
        began."""
        async with self._checking:
            bodies, self._unchecked = self._unchecked, []
            if bodies:
                self._rerun += await self._store.scan(count_rerun(bodies=bodies))
                self._bodies += len(bodies)
