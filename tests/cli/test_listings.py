"""Lists by name: what they print, and that they go on over pages."""

import pytest
from tests.cli.processes import House

from perdure.wire import fields


def test_workers_are_listed_with_what_they_run(busy_house: House) -> None:
    house = busy_house
    (one,) = house.lines("workers")
    assert (one["deployment_id"], one["kind"], one["state"], one["url"]) == ("default", "native", "online", None)
    assert (one["running"], one["capacity"] > 0, one["last_beat_at"] is not None) == (0, True, True)
    shown = house.run("workers").stdout
    assert one["id"] in shown and f"0/{one['capacity']}" in shown and "Python 3." in shown and " ago" in shown


def test_topics_are_listed_over_pages(busy_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = busy_house
    monkeypatch.setattr(fields, "PAGE_MAX", 2)
    for topic in ("shop/a", "shop/b", "shop/c", "other"):
        house.run("publish", topic, "--data", "1", "--type", "made")
    house.run("publish", "shop/b", "--data", "2", "--type", "paid")
    listed = house.lines("topics", "--prefix", "shop/")
    assert [(one["topic"], one["last_sequence_id"]) for one in listed] == [("shop/a", 1), ("shop/b", 2), ("shop/c", 1)]
    shown = house.run("topics", "--prefix", "shop/", "--limit", "2")
    assert "paid" in shown.stdout and "shop/c" not in shown.stdout
    assert "The first 2; --limit shows more." in shown.stderr
    assert "No topic has this prefix." in house.run("topics", "--prefix", "nothing").stdout
