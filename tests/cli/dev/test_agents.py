"""An agent from the first command on: project, questions, conversation."""

import subprocess
import sys

import pytest
from tests.cli.dev.test_dev import developing
from tests.cli.processes import House, until_true

STEP = "approve_refund_pyd_ai_tool_call_id__refund"


@pytest.mark.slow
def test_an_agents_project_runs_asks_and_is_shown_as_a_conversation(house: House) -> None:
    house.run("new", "helpers", "--kind", "agent")
    house.folder = house.folder / "helpers"
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=house.folder,
        env=house.env,
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    with developing(house) as terminal:
        terminal.expect("serves support.")
        id = house.run("run", "support", "--input", '"Where is it?"', "--detach").stdout.strip()
        until_true(lambda: any(one["execution_id"] == id for one in house.lines("approvals")))
        house.run("approve", id, STEP, "--approve", "--data", '{"arguments": {"number": 7, "cents": 100}}')
        until_true(lambda: house.json("show", id)["execution"]["status"] == "completed")
        shown = house.run("show", id).stdout
        assert "Where is it?" in shown and "calls find_order(number=0)" in shown
        assert "refund → Refunded 100 cents for order 7." in shown and f"{STEP}:" in shown
        assert "2 requests to models" in shown
        assert "tool:find_order" in house.run("show", id, "--journal").stdout
        assert house.json("show", id)["execution"]["output_schema_name"] == "str"
