"""What `import perdure` gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import perdure

INIT = Path(perdure.__file__)
PROMISED = {
    "Budget",
    "BudgetExceeded",
    "ChildCancelled",
    "ChildFailed",
    "ChildHandle",
    "Client",
    "Context",
    "Event",
    "EventBatch",
    "EventTrigger",
    "ExecutionCancelled",
    "ExecutionFailed",
    "Fatal",
    "Handle",
    "Mapped",
    "PerdureError",
    "Queue",
    "Registry",
    "RetryAfter",
    "RetryPolicy",
    "Schedule",
    "ScheduledFor",
    "StepFailed",
    "StreamItem",
    "TopicEvent",
    "Workflow",
    "current_step",
    "step",
    "workflow",
}
"""Users import these: a name that is taken away here is taken away from them."""
IMPORT_SECONDS_MAX = 0.15


def test_the_public_names_are_these() -> None:
    assert set(perdure.__all__) == PROMISED
    assert list(perdure.__all__) == sorted(perdure.__all__, key=lambda name: (name[0].islower(), name))
    assert set(dir(perdure)) == PROMISED


def test_every_public_name_is_there_and_is_the_one_that_types_promise() -> None:
    promised: dict[str, str] = {}
    for node in ast.walk(ast.parse(INIT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("perdure."):
            promised.update({alias.name: node.module for alias in node.names})
    assert set(promised) == PROMISED
    homes: dict[str, tuple[str, ...]] = perdure._HOMES
    assert {name: home for home, names in homes.items() for name in names} == promised
    for name, home in promised.items():
        assert getattr(perdure, name) is getattr(sys.modules[home], name)


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(perdure, "nonsense" + "")


def _seconds(program: str) -> float:
    """Processor time that a program takes in a fresh interpreter beyond an empty one, the least of five."""
    code = f"import time; before = time.process_time(); {program}; print(time.process_time() - before)"
    return min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    )


def test_importing_all_of_it_takes_less_than_150_milliseconds() -> None:
    assert _seconds("from perdure import *") < IMPORT_SECONDS_MAX
