"""What every test shares."""

import sys


def pytest_sessionfinish() -> None:
    """End the PostgreSQL of this process, if some test asked for it."""
    launcher = sys.modules.get("tests.postgres")
    if launcher is not None:
        launcher.close()
