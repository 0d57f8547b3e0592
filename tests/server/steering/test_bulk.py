"""Bulk jobs over HTTP and in process."""

import asyncio
from typing import Any, ClassVar

import pytest
from tests.server.serving import Hand, Served

from perdure import Client, Context, ExecutionFailed, Registry, step
from perdure.sdk.transports.http import HttpTransport
from perdure.testing import embedded
from perdure.wire.base.access import Role
from perdure.wire.base.errors import Conflict, NothingMatches
from perdure.wire.runs.executions import ListFilters
from perdure.wire.steering.bulk import BulkJob

PATH = "/api/v1/bulk"
CANCEL = {"action": "cancel", "filters": {"workflow_id": "w"}}
app = Registry()


@app.workflow
async def plain(ctx: Context) -> str:
    return "done"


class Bank:
    is_up = True
    calls: ClassVar[list[tuple[str, int]]] = []


@step
async def quote(n: int) -> int:
    Bank.calls.append(("quote", n))
    return n


@step
async def pay(n: int) -> int:
    if not Bank.is_up:
        raise ConnectionError("the bank is down")
    Bank.calls.append(("pay", n))
    return n


@app.workflow
async def order(ctx: Context, n: int) -> int:
    return await pay(await quote(n))


async def ended(client: Client, job: BulkJob) -> BulkJob:
    async with asyncio.timeout(20):
        while job.state.value == "running":
            await asyncio.sleep(0.02)
            job = await client.bulk.get(job.id)
    return job


async def test_a_job_from_its_preview_to_its_items(served: Served, hand: Hand) -> None:
    ids = [await served.start() for _ in range(3)]
    found = (await served.client.post(f"{PATH}/preview", json=CANCEL)).json()
    assert (found["count"], found["at_least"], found["newest"]) == (3, False, ids[2])
    assert [one["id"] for one in found["sample"]] == ids[::-1]
    body = CANCEL | {"newest": found["newest"], "expect": 3, "note": "a wrong import"}
    job = (await served.client.post(PATH, json=body)).json()
    assert job | {"created_at": "", "moved_at": "", "per_second": 0} == {
        "id": job["id"],
        "action": "cancel",
        "state": "running",
        "filters": {"workflow_id": "w"},
        "options": {},
        "note": "a wrong import",
        "started_by": job["started_by"],
        "newest": ids[2],
        "total": 3,
        "at_least": False,
        "done": 0,
        "refused": 0,
        "later": 0,
        "per_second": 0,
        "created_at": "",
        "starts_at": None,
        "moved_at": "",
        "ended_at": None,
        "left": 3,
    }
    assert job["started_by"].startswith("key ")
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        done = await ended(client, await client.bulk.get(job["id"]))
    assert (done.done, done.refused, done.left) == (3, 0, 0)
    page = (await served.client.get(f"{PATH}/{job['id']}/items", params={"state": "done", "limit": 2})).json()
    assert [(one["execution_id"], one["state"], one["reason"]) for one in page["items"]] == [
        (ids[2], "done", None),
        (ids[1], "done", None),
    ]
    assert page["next_cursor"] == ids[1]
    assert (await served.client.get(PATH)).json()["jobs"][0]["state"] == "completed"
    reply = await served.client.post(f"{PATH}/{job['id']}/stop")
    assert (reply.status_code, "completed at" in reply.json()["error"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"action": "cancel", "filters": {}}, 422, "A bulk job needs a filter. `created_before` of now takes all."),
        ({"action": "cancel", "filters": {"workflow": "w"}}, 422, "unknown field `workflow`"),
        ({"action": "cancel", "filters": {"status": ["faild"]}}, 400, "filters.status: 'faild' is not one of"),
        ({"action": "cancel", "filters": {"key_part": "a"}}, 422, "filters.key_part: 'a' is too short"),
        ({"action": "explode", "filters": {"key": "k"}}, 422, "explode"),
        ({"action": "resume", "filters": {"key": "k"}, "options": {"steps": 1}}, 422, "unknown field `steps`"),
        (CANCEL, 400, "No open execution matches workflow_id 'w'."),
    ],
)
async def test_a_wrong_request_is_told_what_would_work(
    served: Served, body: dict[str, Any], status: int, error: str
) -> None:
    for path in (f"{PATH}/preview", PATH):
        reply = await served.client.post(path, json=body)
        assert (reply.status_code, error in reply.json()["error"]) == (status, True), reply.text
    reply = await served.client.post(PATH, json=CANCEL | {"hold_seconds": 301})
    assert (reply.status_code, reply.json()["error"]) == (422, "hold_seconds: must be 0 to 300, got 301")
    assert (await served.client.get(PATH)).json() == {"jobs": [], "next_cursor": None}


async def test_only_admins_run_jobs_and_readers_see_them(served: Served) -> None:
    await served.start()
    job = (await served.client.post(PATH, json=CANCEL)).json()
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    for path in (PATH, f"{PATH}/preview", f"{PATH}/{job['id']}/stop", f"{PATH}/{job['id']}/continue"):
        assert (await served.client.post(path, json=CANCEL, headers=writer)).status_code == 403
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    for path in (PATH, f"{PATH}/{job['id']}", f"{PATH}/{job['id']}/items"):
        assert (await served.client.get(path, headers=reader)).status_code == 200


async def test_the_same_key_starts_one_job(served: Served) -> None:
    await served.start()
    once = {"idempotency-key": "monday"}
    first = (await served.client.post(PATH, json=CANCEL, headers=once)).json()
    again = (await served.client.post(PATH, json=CANCEL, headers=once)).json()
    assert again["id"] == first["id"]
    reply = await served.client.post(PATH, json=CANCEL | {"note": "other"}, headers=once)
    assert (reply.status_code, reply.json()["error_type"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert f"`perdure bulk show {first['id']}`" in reply.json()["error"]
    assert reply.json()["details"] == {"job_id": first["id"]}


async def test_a_job_in_process() -> None:
    async with embedded(app) as client:
        ids = [(await client.start(plain)).id for _ in range(3)]
        for id in ids:
            await client.handle(id).result()
        filters = ListFilters(workflow_id="plain")
        found = await client.bulk.preview("delete", filters)
        assert (found.count, found.newest) == (3, ids[2])
        with pytest.raises(Conflict):
            await client.bulk.start("delete", filters, expect=2)
        job = await ended(client, await client.bulk.start("delete", filters, newest=ids[1]))
        assert (job.done, [one.id for one in (await client.list()).executions]) == (2, [ids[2]])
        assert [one.execution_id for one in (await client.bulk.items(job.id)).items] == [ids[1], ids[0]]
        assert [one.id for one in (await client.bulk.list()).items] == [job.id]
        with pytest.raises(NothingMatches):
            await client.bulk.preview("resume", filters, key="k", data=1)


async def test_what_failed_is_retried_from_the_failed_step() -> None:
    Bank.is_up = False
    async with embedded(app) as client:
        handles = [await client.start(order, n, key=f"order-{n}") for n in range(4)]
        for handle in handles:
            with pytest.raises(ExecutionFailed):
                await handle.result()
        Bank.is_up = True
        filters = ListFilters(workflow_id="order", status=["failed"])
        job = await ended(client, await client.bulk.start("retry", filters, note="the bank is up"))
        assert (job.done, job.refused) == (4, 0)
        for n, item in enumerate(reversed((await client.bulk.items(job.id)).items)):
            assert item.made_id is not None
            assert await client.handle(item.made_id).result() == n
            assert (await client.find(order, f"order-{n}")).id == item.made_id
        assert sorted(Bank.calls) == [(name, n) for name in ("pay", "quote") for n in range(4)], "each step ran once"
        first = ListFilters(key="order-1", retried=True)
        job = await ended(client, await client.bulk.start("fork", first, steps={"quote": 8}))
        [item] = (await client.bulk.items(job.id)).items
        assert item.made_id is not None
        assert await client.handle(item.made_id).result() == 8
