"""Settings of the environment set the limits. Each test is a process, because a process reads limits once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.wire.base import limits

MIB = 1 << 20
ECHO = """
import asyncio, sys
from perdure import Context, workflow
from perdure.embedded import embedded
from perdure.wire.base.errors import PerdureError

@workflow
async def echo(ctx: Context, text: str) -> str:
    return text

@workflow
async def count(ctx: Context, n: int) -> int:
    for k in range(n):
        await ctx.step("s", lambda: k)
    return n

async def main() -> None:
    async with embedded(sys.argv[1]) as p:
        for workflow, input in ((echo, "x" * int(sys.argv[2])), (count, int(sys.argv[3]))):
            try:
                result = await (await p.start(workflow, input)).result()
                print(result if isinstance(result, int) else len(result))
            except PerdureError as error:
                print(str(error).splitlines()[0])

asyncio.run(main())
"""


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ("input: 9,437,186 bytes of JSON; the limit is 8,388,608", "120")),
        ({"PERDURE_VALUE_BYTES_MAX": str(16 * MIB)}, (str(9 * MIB), "120")),
        (
            {"PERDURE_VALUE_BYTES_MAX": "65536", "PERDURE_STEPS_MAX": "100"},
            ("the limit is 65,536", "may call 100 steps"),
        ),
        ({"PERDURE_REPLY_BYTES_MAX": "65536", "PERDURE_VALUE_BYTES_MAX": str(16 * MIB)}, (str(9 * MIB), "120")),
    ],
    ids=["as they are", "larger values", "smaller ones", "smaller replies"],
)
def test_a_limit_is_set_in_the_environment(variables: dict[str, str], said: tuple[str, ...], tmp_path: Path) -> None:
    ran = run("-c", ECHO, str(tmp_path / "perdure.db"), str(9 * MIB), "120", **variables)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2 and all(text in line for text, line in zip(said, lines, strict=True)), ran.stdout


@pytest.mark.parametrize("text", ["lots", "-1", "15", "257", "1e2", "٦٤", "9" * 30])
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    ran = run("-m", "perdure.cli.main", "ls", PERDURE_DEPTH_MAX=text)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.strip() == f"perdure: PERDURE_DEPTH_MAX must be a whole number from 16 to 256, got {text!r}."


def test_a_server_takes_them_for_no_settings_of_its_own() -> None:
    ran = run(
        "-c",
        "from perdure.server.process.settings import load; print(load().request_bytes_max)",
        **{variable: str(getattr(limits, name)) for name, variable in limits.VARIABLES.items()},
    )
    assert ran.stdout.strip() == str(32 * MIB), ran.stderr
