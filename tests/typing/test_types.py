"""Types are promises: mypy reads user_code.py and agents_code.py as a user's strict checker would."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.parametrize("code", ["user_code.py", pytest.param("agents_code.py", marks=pytest.mark.slow)])
def test_users_see_the_types_that_we_promise(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(HERE / code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
