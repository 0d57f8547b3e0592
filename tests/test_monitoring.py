"""deploy/monitoring: the alert rules and the Grafana dashboard name only metrics and labels that servers show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.documented import DOCS

from perdure import Context, Registry, workflow
from perdure.server.telemetry.health import Health
from perdure.server.telemetry.metrics import exposition
from perdure.testing import embedded

FOLDER: Final = Path(__file__).parent.parent / "deploy" / "monitoring"
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
BOARD: Final[dict[str, Any]] = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
EXPRESSIONS: Final = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in BOARD["panels"] for target in panel["targets"]),
]
OF_THE_SCRAPE: Final = {"instance", "job"}
"""Labels that Prometheus adds."""


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError


async def shown() -> dict[str, set[str]]:
    """The labels of each metric of a server with an open, a paused, a queued and a failed execution."""
    async with embedded(Registry(fails)) as p:
        with pytest.raises(Exception, match="ValueError"):
            await (await p.start(fails)).result()
        await p.pause("workflow", "fails")
        await p.start(fails)
        await p.start(fails, delay=60)
        await p.settle()
        page = await exposition(p.engine, None, Health(p.engine.health), 0, 0)
    found: dict[str, set[str]] = {"up": OF_THE_SCRAPE}
    for family in text_string_to_metric_families(page):
        names = {f"{family.name}_total" if family.type == "counter" else family.name}
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        for name in names:
            found.setdefault(name, set())
    return found


async def test_each_expression_names_metrics_and_labels_of_the_servers() -> None:
    metrics = await shown()
    for expression in EXPRESSIONS:
        names = re.findall(r"\b(perdure_\w+|up\b)", expression)
        assert names, expression
        assert set(names) <= set(metrics), expression
        given = set(re.findall(r"(\w+)=~?\"", expression))
        given |= {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
        assert given <= OF_THE_SCRAPE.union(*(LABELS.get(name, metrics[name]) for name in names)), expression


LABELS: Final = {
    "perdure_queue_depth": {"deployment", "queue"},
    "perdure_queue_oldest_seconds": {"deployment", "queue"},
}
"""Labels of metrics without samples here: the server's only ready execution is paused."""


def test_an_alert_says_what_to_do_and_is_named_once() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 10
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) and all(x in (0, 8, 16) for x, _ in places)
    assert {panel["gridPos"]["w"] for panel in panels} == {8} and {panel["gridPos"]["h"] for panel in panels} == {7}
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used <= variables


def test_the_page_of_metrics_names_the_files() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for file in FOLDER.iterdir():
        assert f"deploy/monitoring/{file.name}" in page
