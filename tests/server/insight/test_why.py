"""The explanation of an execution over HTTP."""

from tests.server.serving import Hand, Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.base.access import Role


async def test_an_execution_is_explained_to_readers(served: Served, hand: Hand) -> None:
    id = await served.start()
    await hand.claim()
    path = f"/api/v1/executions/{id}/why"
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    found = (await served.client.get(path, headers=reader)).json()
    assert (found["execution_id"], found["phase"], found["status"]) == (id, "running", "running")
    assert found["sentence"].startswith(f"Worker {hand.id} has run it since ")
    assert found["path"] is None
    facts = {fact["name"]: fact for fact in found["facts"]}
    assert facts["claimed"] == {"name": "claimed", "text": "", "at": found["since"]}
    (part, *_) = (await served.client.get(f"{path}?slow=true")).json()["path"]
    assert set(part) == {"kind", "name", "execution_id", "started_at", "seconds", "percent", "times"}
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        why = await client.why(id, slow=True)
        assert why.sentence.startswith(found["sentence"].split(";")[0])
        assert why.path is not None and round(sum(part.percent for part in why.path), 6) == 100
    _, other_project = await served.other_project()
    assert (await served.client.get(path, headers=other_project)).status_code == 404
    assert (await served.client.get(f"{path}?slow=maybe")).status_code == 400
    assert (await served.client.get("/api/v1/executions/nonsense/why")).status_code == 400
