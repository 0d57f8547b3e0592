"""The main demo, as `make demo` runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "integrity.py"


@pytest.mark.slow
def test_the_demo_keeps_its_promises() -> None:
    done = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed the worker" in done.stdout
    assert "recorded steps that ran again" in done.stdout
    assert "GET /api/v1/executions/" in done.stdout
