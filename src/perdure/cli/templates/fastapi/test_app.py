"""Places an order over HTTP, and kills its workflow at every commit once."""

import asyncio
from pathlib import Path

import pytest
from app import app, order
from fastapi.testclient import TestClient
from perdure.testing import crash_everywhere


def test_an_order_is_placed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    monkeypatch.setenv("DASHBOARD_PORT", "0")
    with TestClient(app) as client:
        first, again = (client.post("/orders/7").json() for _ in range(2))
        assert first == again
        assert client.get("/orders/7", params={"wait": 20}).json() == {"receipt": "receipt-7"}
        assert client.get("/orders/8").status_code == 404


def test_an_order_survives_a_crash_at_every_commit() -> None:
    assert asyncio.run(crash_everywhere(order, 7)).result == "receipt-7"
