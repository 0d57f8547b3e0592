"""`perdure new` and `perdure dev`, at a terminal, as somebody would try them first."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from tests.cli.processes import SECONDS, House, Terminal, ask_server, until_true
from tests.ports import free_port


@contextmanager
def developing(house: House, *arguments: str) -> Iterator[Terminal]:
    """`perdure dev` at a terminal. The key `q` ends the command, if the block has not."""
    port = free_port()
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{port}"
    terminal = Terminal(house, "dev", "app.py", "--port", str(port), *arguments)
    try:
        yield terminal
        if terminal.process.poll() is None:
            terminal.press("q")
        assert terminal.close() == 0
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
            terminal.process.wait()


@pytest.mark.slow
def test_a_new_project_runs_and_its_tests_pass(house: House) -> None:
    (house.folder / "app.py").unlink()
    assert "perdure dev app.py" in house.run("new", "fresh").stdout
    assert "has app.py already" in house.run("new", "fresh", code=2).stderr
    house.folder = house.folder / "fresh"
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=house.folder,
        env=house.env,
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "2 passed" in tests.stdout
    with developing(house) as terminal:
        terminal.expect("serves order.")
        assert "parcel-7-1" in house.run("run", "order", "--input", '{"id": 7}').stdout


def test_dev_prints_a_curl_line_a_page_and_a_project_that_work(house: House) -> None:
    with developing(house) as terminal:
        shown = terminal.expect(
            "serves double, refunded, second_luck, changes, fails, asks, asks_plainly, hands_over, naps, spends, "
            "runs_out, waiter, listens."
        )
        (curl,) = (line for line in shown.splitlines() if line.startswith("curl "))
        reply = json.loads(subprocess.run(curl, shell=True, capture_output=True, check=True).stdout)
        terminal.expect(f"completed   double {reply['execution_id']}")
        found = house.json("show", reply["execution_id"])["execution"]
        assert (found["status"], found["deployment_id"]) == ("completed", "dev")
        second = house.run("dev", "app.py", "--port", "0", code=2).stderr
        assert f"already, as process {terminal.process.pid} at {house.env['PERDURE_URL']};" in second
        link = re.search(r"http://\S+/sign-in\?token=\S+", shown)
        assert link is not None
        with urllib.request.urlopen(link[0]) as page:
            assert "type='submit' autofocus>Sign in</button>" in page.read().decode()
        file = house.home / ".config" / "perdure" / "credentials.toml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        project = re.search(r"Project\s+(\S+)", shown)
        assert project is not None and project[1] in file.read_text()
        (run,) = (line for line in shown.splitlines() if "perdure run double" in line)
        assert "--input '[]'" in run
    first = file.read_text()
    assert (house.folder / ".perdure" / "perdure.db").is_file()
    assert _processes(house) == []
    # The next time: the same store, the same key.
    port = house.env["PERDURE_URL"].rpartition(":")[2]
    terminal = Terminal(house, "dev", "app.py", "--port", port)
    terminal.expect("serves")
    assert house.json("show", reply["execution_id"])["execution"]["status"] == "completed"
    assert file.read_text() == first
    terminal.press("q")
    assert terminal.close() == 0


def _processes(house: House) -> list[str]:
    """Processes that still run in the house."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.cwd() == str(house.folder):
                found.append(" ".join(process.info["cmdline"]))
        except psutil.Error:
            continue
    return found


def test_the_key_k_kills_the_worker_and_the_run_goes_on(house: House) -> None:
    with developing(house) as terminal:
        terminal.expect("serves")
        numbers = list(range(40))
        with house.holding(8):
            run = house.start(
                "run", "double", "--input", json.dumps(numbers), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            house.until_body(8)
            terminal.press("k")
            terminal.expect("is killed (SIGKILL); another one takes over. It ran 1 execution.")
        terminal.expect("Another worker goes on with")
        terminal.expect("s after the kill.")
        out, shown = run.communicate(timeout=SECONDS)
        assert json.loads(out) == [2 * number for number in numbers]
        assert run.returncode == 0
        assert "lost" in shown
        terminal.expect("completed")
        terminal.press("?")
        terminal.expect("o  open the page in the browser")
        until_true(lambda: _ask(house, "GET", "/api/v1/dev")["bodies"] == 41)
        status = _ask(house, "GET", "/api/v1/dev")
        assert (status["kills"], status["steps_rerun"]) == (1, 0)
        terminal.press("q")
        terminal.expect("Recorded steps that ran again: 0.")
    assert house.bodies() == [*range(9), *range(8, 40)]  # only the step in flight ran twice


@pytest.mark.slow
def test_chaos_kills_until_it_is_ended(house: House) -> None:
    with developing(house, "--chaos") as terminal:
        shown = terminal.expect("serves")
        assert "Chaos: a worker is killed about every 20 s." in shown
        numbers = list(range(200))
        run = house.start("run", "double", "-i", json.dumps(numbers), "-q", stdout=subprocess.PIPE)
        assert _ask(house, "PUT", "/api/v1/dev/chaos", {"every_seconds": 1})["chaos_seconds"] == 1
        for _ in range(3):
            terminal.expect("Chaos: worker")
            terminal.expect("s after the kill.")
        until_true(lambda: _ask(house, "GET", "/api/v1/dev")["workers"] != [])
        status = _ask(house, "PUT", "/api/v1/dev/chaos", {"every_seconds": None})
        assert status["kills"] >= 3 and status["last_kill"]["by"] == "chaos"
        out, _ = run.communicate(timeout=SECONDS)
        assert json.loads(out) == [2 * number for number in numbers]
        began = len(house.bodies())  # a kill may come before a body that began has written its number

        def is_counted() -> bool:
            found = _ask(house, "GET", "/api/v1/dev")
            return bool(began <= found["bodies"] <= began + found["kills"])

        until_true(is_counted)
        assert _ask(house, "GET", "/api/v1/dev")["steps_rerun"] == 0


def _ask(house: House, method: str, path: str, body: object = None) -> dict[str, Any]:
    house.env["PERDURE_API_KEY"] = _key(house)
    found: dict[str, Any] = ask_server(house, method, path, body)
    return found


def test_a_change_is_reloaded_and_broken_code_waits_for_the_next(house: House) -> None:
    app = house.folder / "app.py"
    good = app.read_text()
    with developing(house) as terminal:
        terminal.expect("serves double")
        app.write_text(good.replace("number * 2", "number * 3"))
        terminal.expect("Changed: app.py")
        terminal.expect("serves double")
        assert house.run("run", "double", "--input", "[1]", "-q").stdout == "[3]\n"
        app.write_text(good + "\nnonsense\n")
        terminal.expect("NameError: name 'nonsense' is not defined")
        terminal.expect("it starts again on the next change")
        app.write_text(good)
        terminal.expect("serves double")
        assert house.run("run", "double", "--input", "[1]", "-q").stdout == "[2]\n"


@pytest.mark.slow
def test_code_that_no_longer_matches_its_journal_is_told_with_the_line(house: House) -> None:
    app = house.folder / "app.py"
    good = app.read_text()
    with developing(house) as terminal:
        terminal.expect("serves double")
        id = house.waiting("asks")
        app.write_text(good.replace('await ctx.suspend("approve", {"amount": 120})', "await body(1)"))
        terminal.expect("serves double")
        body = json.dumps({"data": "yes"}).encode()
        request = urllib.request.Request(
            f"{house.env['PERDURE_URL']}/api/v1/executions/{id}/resume/approve",
            body,
            {"Authorization": f"Bearer {_key(house)}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        shown = terminal.expect("app.py:")
        assert "blocked" in shown
        app.write_text(good)
        terminal.expect(f"completed   asks {id}")


def _key(house: House) -> str:
    found = re.search(r'api_key = "(\S+)"', (house.home / ".config" / "perdure" / "credentials.toml").read_text())
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_dev_without_keys_needs_none(house: House) -> None:
    with developing(house, "--insecure-local") as terminal:
        shown = terminal.expect("serves")
        assert "not needed" in shown and "Authorization" not in shown
        assert house.run("run", "double", "--input", "[1]", "-q").stdout == "[2]\n"


LOUD = """
print("i" * 200_000, flush=True)


@registry.workflow
async def shouts(ctx: Context, sign: str) -> str:
    await ctx.step("shout", lambda: print(sign * 300_000, end=""))
    return "hoarse"
"""


def test_a_line_of_any_length_passes_through_and_the_worker_goes_on(house: House) -> None:
    app = house.folder / "app.py"
    loud = app.read_text() + LOUD
    app.write_text(loud)
    with developing(house) as terminal:
        terminal.expect("i" * 200_000 + "\n")  # before the worker has said what it serves
        terminal.expect("serves double")
        for sign in "#~":
            assert _shouts(house, terminal, sign) == '"hoarse"\n'
        terminal.press("k")
        terminal.expect("\n  Worker")
        terminal.expect("is killed (SIGKILL); another one takes over.")
        terminal.expect("serves double")
        app.write_text(loud.replace("hoarse", "mute"))
        terminal.expect("Changed: app.py")
        terminal.expect("serves double")
        assert _shouts(house, terminal, "^") == '"mute"\n'


def _shouts(house: House, terminal: Terminal, sign: str) -> str:
    """What a run gives that prints a long line, which no newline follows. What `dev` says itself may come between."""
    run = house.start("run", "shouts", "--input", f'"{sign}"', "-q", stdout=subprocess.PIPE)
    terminal.expect_all(sign, 300_000)  # meanwhile: a terminal that nobody reads holds up all that print
    return run.communicate(timeout=SECONDS)[0]


def test_dev_fails_when_its_server_ends(house: House) -> None:
    port = free_port()
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{port}"
    with Terminal(house, "dev", "app.py", "--port", str(port)) as terminal:
        terminal.expect("serves")
        (server,) = (
            one
            for one in psutil.Process(terminal.process.pid).children()
            if "perdure.cli.processes.dev_server" in one.cmdline()
        )
        server.kill()
        terminal.expect("The server has ended (exit code -9)")
        assert terminal.close() == 1
        assert "Ended." not in terminal.shown
    until_true(lambda: _processes(house) == [])


def test_dev_ends_with_its_terminal_and_takes_its_processes_along(house: House) -> None:
    port = free_port()
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{port}"
    terminal = Terminal(house, "dev", "app.py", "--port", str(port))
    terminal.expect("serves")
    assert len(_processes(house)) == 3
    terminal.process.kill()  # not even asked: its children notice
    terminal.close()
    until_true(lambda: _processes(house) == [])


def test_a_worker_without_a_server_ends_with_the_dev_that_started_it(house: House) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with house.start(
        "work", "app.py", "--child", "--url", url, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        assert worker.stdin is not None and worker.stderr is not None
        try:
            assert any("Trying until it is there" in line for line in worker.stderr)
            worker.stdin.close()  # as the system does when the parent is gone
            assert worker.wait(SECONDS) == 0
        finally:
            worker.kill()


def test_dev_says_what_is_wrong_before_it_starts(house: House) -> None:
    (house.home / ".config").touch()
    refused = house.run("dev", "app.py", "--port", "0", code=2).stderr
    assert refused.startswith("perdure: ") and ".config" in refused and len(refused.splitlines()) == 1
    (house.home / ".config").unlink()
    assert "File 'nothing.py' does not exist" in house.run("dev", "nothing.py", code=2).stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = house.run("dev", "app.py", "--port", str(port), code=2).stderr
        assert "choose another port. `--port 0` takes a free one" in refused
        house.env["PERDURE_PORT"] = str(port)
        assert f"127.0.0.1:{port}" in house.run("dev", code=2).stderr


def test_dev_speaks_json_to_programs(house: House) -> None:
    port = free_port()
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{port}"
    process = house.start(
        "dev", "app.py", "--port", str(port), "--json", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready" and ready["url"] == house.env["PERDURE_URL"] and ready["curl"].startswith("curl ")
    assert json.loads(process.stdout.readline())["event"] == "worker"
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read().splitlines()
    assert json.loads(rest[-1])["event"] == "ended"
    assert process.wait(30) == 0
    process.stdout.close()
