"""What `import perdure` gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import perdure

INIT = Path(perdure.__file__)
PROMISED = {
    "BadRequest",
    "BadValue",
    "Budget",
    "BudgetExceeded",
    "ChildCancelled",
    "ChildFailed",
    "ChildHandle",
    "Client",
    "Conflict",
    "Context",
    "DeploymentNotFound",
    "Event",
    "EventBatch",
    "EventTrigger",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionInfo",
    "Fatal",
    "Forbidden",
    "Handle",
    "LaterOutcomes",
    "Mapped",
    "NotCancellable",
    "NotFound",
    "PerdureError",
    "Queue",
    "Registry",
    "RetryAfter",
    "RetryPolicy",
    "Schedule",
    "ScheduledFor",
    "SessionBusy",
    "StepFailed",
    "StreamItem",
    "TooLarge",
    "TooManyRequests",
    "TopicEvent",
    "Unauthorized",
    "Unavailable",
    "UnknownOutcome",
    "Workflow",
    "WorkflowNotFound",
    "current_step",
    "step",
    "workflow",
}
"""Users import the names: a name removed here is removed for users."""


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


def test_importing_all_of_it_loads_next_to_nothing() -> None:
    """The import takes some 0.1 s. Costlier parts (HTTP, agents, tables of a terminal) load on use."""
    program = "import sys; from perdure import *; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    ours = {"cronsim", "msgspec", "perdure", "typing_extensions"}
    known = {*sys.stdlib_module_names, *ours}
    others = {name for name in loaded.split() if name not in known and not name.startswith("_")}
    assert others <= _at_start(), "whoever imports perdure waits for these"


def _at_start() -> set[str]:
    """What the interpreter of this environment has loaded before the first line (hooks of editable installs)."""
    program = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True).stdout.split())
