"""The routes of `perdure dev`: an admin has them on that server; other servers lack them."""

from tests.server.serving import Served

from perdure.server.process.dev import DevStatus, DevWorker, Killed
from perdure.wire.base.access import Role
from perdure.wire.base.errors import Conflict

DEV = "/api/v1/dev"


class Session:
    """What the routes ask of."""

    def __init__(self) -> None:
        self.now = DevStatus(workers=[DevWorker("w", 7)])

    async def status(self) -> DevStatus:
        return self.now

    async def kill(self, worker_id: str | None) -> Killed:
        if worker_id is not None:
            raise Conflict("It is gone.")
        return Killed("w", 7, 1)

    async def set_chaos(self, every_seconds: float | None) -> DevStatus:
        self.now = DevStatus(chaos_seconds=every_seconds)
        return self.now


async def test_other_servers_kill_no_workers(served: Served) -> None:
    for method, path, body in (("GET", DEV, None), ("POST", f"{DEV}/kill", {}), ("PUT", f"{DEV}/chaos", CHAOS)):
        reply = await served.client.request(method, path, json=body)
        assert reply.status_code == 404 and "`perdure dev`" in reply.json()["error"], reply.text
    assert (await served.client.get("/api/v1/me")).json()["features"] == []


CHAOS = {"every_seconds": 5}


async def test_a_dev_server_tells_kills_and_sets_chaos(served: Served) -> None:
    served.app.services.dev = Session()
    assert (await served.client.get("/api/v1/me")).json()["features"] == ["dev"]
    assert (await served.client.get(DEV)).json() == {
        "kills": 0,
        "bodies": 0,
        "steps_rerun": 0,
        "chaos_seconds": None,
        "workers": [{"worker_id": "w", "pid": 7}],
        "last_kill": None,
    }
    killed = await served.client.post(f"{DEV}/kill", json={})
    assert killed.json() == {"worker_id": "w", "pid": 7, "kills": 1}
    assert (await served.client.post(f"{DEV}/kill", json={"worker_id": "other"})).status_code == 409
    assert (await served.client.put(f"{DEV}/chaos", json=CHAOS)).json()["chaos_seconds"] == 5
    assert (await served.client.put(f"{DEV}/chaos", json={"every_seconds": None})).json()["chaos_seconds"] is None
    for wrong in ({}, {"every_seconds": 0.5}, {"every_seconds": "5"}, {"every_seconds": 4_000}):
        assert (await served.client.put(f"{DEV}/chaos", json=wrong)).status_code == 422
    headers = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await served.client.post(f"{DEV}/kill", json={}, headers=headers)).status_code == 403
