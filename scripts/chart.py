"""Renders the Helm chart, with Helm's own engine.

python -m scripts.chart --write             write deploy/kubernetes anew: the chart with its defaults
python -m scripts.chart RELEASE VALUES      print what the linter finds and each manifest, as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePath
from typing import Final

import helm_python

DEPLOY: Final = Path(__file__).resolve().parent.parent / "deploy"
CHART: Final = DEPLOY / "helm" / "perdure"


def render(release: str, values: dict[str, object]) -> dict[str, str]:
    """The files by name. Raises `helm_python.HelmError` if the schema refuses the values."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=release, namespace="default")
    return {PurePath(name).name: text for name, text in rendered.items()}


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        for name, text in render("perdure", {}).items():
            if name.endswith(".yaml"):
                (DEPLOY / "kubernetes" / name).write_text(text, encoding="utf-8")
        return
    release, values = sys.argv[1], json.loads(sys.argv[2])
    try:
        found = helm_python.lint(CHART, values, strict=True)
        print(json.dumps({"lint": found["messages"], "files": render(release, values)}))
    except helm_python.HelmError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
