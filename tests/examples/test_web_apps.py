"""The web examples, run by the frameworks' own servers."""

import asyncio
from pathlib import Path

import httpx2
import pytest


async def test_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    from examples.fastapi_app import app, lifespan

    async with (
        lifespan(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client,
    ):
        first = (await client.post("/orders/7")).json()
        again = (await client.post("/orders/7")).json()
        assert first == again
        done = (await client.get("/orders/7?wait=10")).json()
        assert done == {"status": "completed", "receipt": "receipt-7"}
        assert (await client.get("/orders/8")).status_code == 404


async def test_django(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    from django.test import Client as DjangoClient
    from examples import django_app

    def use() -> None:
        client = DjangoClient()
        first = client.post("/orders/7")
        assert first.status_code == 202
        assert client.post("/orders/7").json() == first.json()
        assert client.get("/orders/7/receipt").json() == {"receipt": "receipt-7"}
        django_app.here().close()
        django_app.background = None

    await asyncio.to_thread(use)
