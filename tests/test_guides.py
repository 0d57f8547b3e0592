"""The Python blocks of docs/guides run, and do what the text around them says."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.documented import DOCS, Page, blocks
from tests.embedded.house import reaches

from perdure import ExecutionFailed, Registry
from perdure.embedded import embedded as opened
from perdure.testing import embedded
from perdure.wire.base.signatures import make_secret, signed_headers
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters
from perdure.wire.steering.acts import PendingKind

RUN = {
    *("approvals-in-a-web-app", "django", "embedded", "fastapi", "flask", "from-celery", "from-dbos"),
    *("from-temporal", "import", "jupyter", "rate-limits", "saga", "versions", "webhooks-in-and-out"),
}
RUN_ELSEWHERE = {"agent-in-a-web-page", "long-agents"}
"""tests/agents/test_docs.py runs the guides of agents: loading agents takes seconds."""


def test_each_guide_with_python_blocks_has_a_test() -> None:
    guides = {page.stem for page in DOCS.glob("guides/*.md")}
    assert {guide for guide in guides if blocks(f"guides/{guide}")} == RUN | RUN_ELSEWHERE


def test_the_examples_that_guides_name_are_there() -> None:
    named = {path for page in DOCS.glob("guides/*.md") for path in re.findall(r"`(examples/[^`]+)`", page.read_text())}
    assert len(named) > 5
    assert [path for path in named if not (DOCS.parent / path).exists()] == []


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """A guide's workflows would be declared in later tests, beside those of other guides with the same names."""
    yield
    for name in [name for name in sys.modules if name.startswith("documented_guides_")]:
        del sys.modules[name]
    gc.collect()


@asynccontextmanager
async def calling(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an ASGI application, with its lifespan around."""
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client,
    ):
        yield client


async def test_saga(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page("guides/saga")
    module = await page.run()
    async with embedded(Registry(module.book_trip)) as p:
        with pytest.raises(ExecutionFailed, match="the garage is empty"):
            await (await p.start(module.book_trip, 13)).result()
    undone = ["cancelled car-13", "cancelled hotel-13", "cancelled flight-13"]
    assert capsys.readouterr().out.splitlines() == undone
    await page.run()
    await module.test_a_trip_is_booked()
    await module.test_a_failed_trip_is_undone()
    assert page.all_ran


async def test_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"customer-{n % 3},{n}" for n in range(700)]
    Path("orders.csv").write_text("\n".join(["customer,amount", *rows, "customer-0,-5"]))
    page = Page("guides/import")
    module = await page.run()
    running: Counter[str] = Counter()
    most = 0

    async def store(row: Any) -> None:
        nonlocal most
        running[row.customer] += 1
        most = max(most, *running.values())
        await asyncio.sleep(0)
        running[row.customer] -= 1
        if row.amount < 0:
            raise ValueError("owes")

    module.store = module.step(store)
    async with embedded(Registry(module.import_file, module.import_row)) as p:
        await page.run(client=p)
        assert capsys.readouterr().out == "Summary(imported=700, failed=1)\n"
        (failed,) = (await p.list(ListFilters(parent_execution_id=module.handle.id, phases=[Phase.FAILED]))).executions
        assert failed.concurrency_key == "customer-0"
        progress = msgspec.json.encode((await module.handle.get()).progress)
        assert msgspec.json.decode(progress) == {"done": 701, "total": None, "text": "1 failed"}
    assert 1 <= most <= 2
    assert page.all_ran


async def test_approvals_in_a_web_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPENSES", str(tmp_path / "expenses.db"))
    page = Page("guides/approvals-in-a-web-app")
    module = await page.run()
    async with calling(module.app) as client:
        id = (await client.post("/expenses", json={"number": 7, "euros": 120})).json()["id"]
        await reaches(module.perdure().handle(id), Phase.WAITING)
        assert (await client.get(f"/expenses/{id}")).json() == {"phase": "waiting", "questions": ["approve"]}
        yes = {"approved": True, "by": "ann"}
        decided = await client.post(f"/expenses/{id}/decision", json=yes)
        assert decided.json() == {"result": "paid 120 euros"}
        assert (await client.post(f"/expenses/{id}/decision", json=yes)).status_code == 200
        refused = await client.post(f"/expenses/{id}/decision", json={"approved": False, "by": "bob"})
        assert refused.status_code == 409
    assert page.all_ran


async def test_webhooks_in(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = make_secret()
    monkeypatch.setenv("PAYMENTS_SECRET", secret)
    page = Page("guides/webhooks-in-and-out")
    module = await page.run()
    body = json.dumps({"order": 7, "method": "card"}).encode()
    headers = signed_headers([secret], "msg_1", int(time.time()), body)
    async with embedded(Registry(module.order)) as p, calling(module.app) as client:
        module.client = p
        handle = await p.start(module.order, 7)
        for _ in range(2):
            assert (await client.post("/hooks/payments", content=body, headers=headers)).status_code == 202
        assert (await client.post("/hooks/payments", content=body + b" ", headers=headers)).status_code == 400
        assert await handle.result() == "paid with card"
        assert len(await p.events("payments")) == 1
    assert page.all_ran


async def test_rate_limits() -> None:
    page = Page("guides/rate-limits")
    asked: Counter[str] = Counter()

    class Http:
        async def get(self, path: str) -> httpx2.Response:
            asked[path] += 1
            request = httpx2.Request("GET", f"http://crm{path}")
            if asked[path] == 1:
                return httpx2.Response(429, headers={"retry-after": "30"}, request=request)
            return httpx2.Response(200, text=f"page {path}", request=request)

    module = await page.run(http=Http())
    async with embedded(Registry(module.sync, module.fetch)) as p:
        before = p.clock.now_us()
        handle = await p.start(module.sync, ["/a", "/b"])
        assert await handle.result() == ["page /a", "page /b"]
        assert 30_000_000 <= p.clock.now_us() - before < 60_000_000  # both wait at once: no slot is held
    assert asked == {"/a": 2, "/b": 2}
    assert page.all_ran


async def test_versions(tmp_path: Path) -> None:
    page = Page("guides/versions")
    module = await page.run()
    await page.run()
    file = str(tmp_path / "app.db")
    async with opened(file, Registry(module.order_v1)) as p:
        handle = await p.start(module.order_v1, 7, key="order-7")
        await reaches(handle, Phase.WAITING)
    async with opened(file, Registry(module.order_v2)) as p:
        await p.act(handle.id, "fire", key=await timer(p, handle.id))
        await reaches(p.handle(handle.id), Phase.BLOCKED)
    await page.run()
    async with opened(file, Registry(module.order_v3)) as p:
        assert await p.handle(handle.id, module.order_v3).result() == "receipt-7"
    assert page.all_ran


async def timer(p: Any, id: str) -> str:
    (call,) = await p.pending(id)
    assert call.kind == PendingKind.TIMER
    return str(call.key)


async def test_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS", str(tmp_path / "orders.db"))
    page = Page("guides/fastapi")
    module = await page.run()
    async with calling(module.app) as client:
        first = await client.post("/orders/7")
        assert first.status_code == 202
        assert (await client.post("/orders/7")).json() == first.json()
        assert (await client.get("/orders/7")).json() == {"receipt": "receipt-7"}
        assert (await client.get("/orders/8")).status_code == 404
    assert page.all_ran


async def test_django(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS", str(tmp_path / "orders.db"))
    import examples.django_app  # its settings: a process has one set
    from django.test import RequestFactory

    assert examples.django_app.urlpatterns
    page = Page("guides/django")
    module = await page.run()

    def use() -> None:
        request = RequestFactory().post("/")
        placed = module.place(request, 7)
        assert placed.status_code == 202
        assert module.place(request, 7).content == placed.content
        assert json.loads(module.receipt(request, 7).content) == {"receipt": "receipt-7"}
        module.perdure().close()

    await asyncio.to_thread(use)
    assert page.all_ran


async def test_flask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS", str(tmp_path / "orders.db"))
    page = Page("guides/flask")
    module = await page.run()

    def use() -> None:
        client = module.app.test_client()
        placed = client.post("/orders/7")
        assert placed.status_code == 202
        assert client.post("/orders/7").json == placed.json
        assert client.get("/orders/7").json == {"receipt": "receipt-7"}
        module.perdure.close()

    await asyncio.to_thread(use)
    assert page.all_ran


async def test_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Page("guides/jupyter")
    await page.run()
    module = await page.run()
    assert await module.handle.result() == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
    await page.run()
    assert page.all_ran


def test_embedded(tmp_path: Path) -> None:
    """A reader runs the program in a process."""
    (program,) = blocks("guides/embedded")
    (tmp_path / "album.py").write_text(program, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "album.py"], cwd=tmp_path, input="\n", capture_output=True, text=True, check=True, timeout=120
    )
    assert "['a-small.png', 'b-small.png']" in ran.stdout
    assert "/sign-in?token=" not in ran.stderr  # no terminal: the log keeps no link


async def test_from_celery() -> None:
    page = Page("guides/from-celery")
    module = await page.run()
    async with embedded(Registry(module.order)) as p:
        assert await (await p.start(module.order, 7)).result() == "receipt-7"
    assert page.all_ran


async def test_from_temporal() -> None:
    page = Page("guides/from-temporal")
    module = await page.run()
    async with embedded(Registry(module.order), skip_time=False) as p:
        handle = await p.start(module.order, 7)
        late = await p.start(module.order, 8)
        await p.publish("shipping", {"order": 7, "carrier": "bike"})
        assert await handle.result() == "receipt-7, shipped with bike"
        await p.settle()
        await p.advance(86_400)
        with pytest.raises(ExecutionFailed, match="TimeoutError"):
            await late.result()
    assert page.all_ran


async def test_from_dbos() -> None:
    page = Page("guides/from-dbos")
    module = await page.run()
    async with embedded(Registry(module.order)) as p:
        assert await (await p.start(module.order, 7)).result() == "receipt-7"
        (event,) = await p.events("receipts")
        assert json.loads(bytes(event.data)) == {"order": 7, "receipt": "receipt-7"}
    assert page.all_ran
