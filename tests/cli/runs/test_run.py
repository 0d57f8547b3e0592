"""Starting, watching, looking and stopping, against a server and a worker in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from tests.cli.processes import APP, SECONDS, House, end, serving, until_true, working

COMMANDS = (
    *("new", "dev", "run", "ls", "show", "logs", "cancel", "wait", "resume", "publish", "serve", "work"),
    *("backup", "restore", "erase", "doctor", "keys", "chat"),
)


def test_run_shows_what_happens_and_prints_the_result(busy_house: House) -> None:
    done = busy_house.run("run", "double", "--input", "[1, 2, 3]", apart=True)
    assert done.stdout == "[2,4,6]\n"
    for said in ("Started ", "claimed", "doubling 3 numbers", "body#3", "completed"):
        assert said in done.stderr
    quiet = busy_house.run("run", "double", "--input", "[1]", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("[2]\n", "")


def test_run_takes_its_input_from_a_file_or_the_standard_input(busy_house: House) -> None:
    (busy_house.folder / "numbers.json").write_text("[4]")
    assert busy_house.run("run", "double", "-i", "@numbers.json", "-q").stdout == "[8]\n"
    assert busy_house.run("run", "double", "-i", "-", "-q", input="[5]").stdout == "[10]\n"


def test_run_says_by_its_exit_code_how_it_went(busy_house: House) -> None:
    failed = busy_house.run("run", "fails", code=1)
    assert "failed: " in failed.stderr and "no such luck" in failed.stderr and failed.stdout == ""
    for told in (failed.stderr, busy_house.run("show", _newest(busy_house)["id"]).stdout):
        assert re.search(r'app\.py", line \d+, in fails\n', told), "where the code failed"
    first, _ = (busy_house.waiting("asks", "--key", key) for key in ("zero", "one"))
    watched = busy_house.json("run", "asks", "--key", "zero", "--timeout", "0.5", code=4)
    assert (watched["id"], watched["phase"]) == (first, "waiting")
    assert busy_house.json("cancel", watched["id"])["phase"] == "cancelled"
    cancelled = busy_house.run("run", "asks", "--key", "one", "--timeout", "0.5", code=4)
    assert "goes on (waiting)" in cancelled.stderr
    nobody = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    refused = busy_house.run("cancel", nobody, watched["id"], _newest(busy_house)["id"], code=2).stderr
    assert f"{nobody!r} does not exist" in refused and "it is cancelled already" in refused
    assert "was cancelled by user" in busy_house.run("run", "asks", "--key", "one", code=3).stderr


def test_wait_says_how_an_execution_ended(busy_house: House) -> None:
    done = busy_house.run("run", "double", "--input", "[6]", "--detach").stdout.strip()
    assert busy_house.run("wait", done).stdout == "[12]\n"
    assert busy_house.json("wait", done)["result"] == [12]
    failed = busy_house.run("run", "fails", "--detach").stdout.strip()
    assert "no such luck" in busy_house.run("wait", failed, code=1).stderr
    asks = busy_house.waiting("asks")
    assert f"{asks} goes on (waiting)" in busy_house.run("wait", asks, "--timeout", "0.5", code=4).stderr
    assert busy_house.json("wait", asks, "--timeout", "0", code=4)["phase"] == "waiting"
    waiting = busy_house.start("wait", asks, stdout=subprocess.PIPE)
    busy_house.run("resume", asks, "approve", "--data", "true")
    assert (waiting.communicate(timeout=SECONDS)[0], waiting.returncode) == ("true\n", 0)
    cancelled = busy_house.run("run", "asks", "--detach").stdout.strip()
    busy_house.run("cancel", cancelled, "--note", "too late")
    assert "was cancelled by user" in busy_house.run("wait", cancelled, code=3).stderr
    assert "cancelled it ('too late') at" in busy_house.run("why", cancelled).stdout
    assert "does not exist" in busy_house.run("wait", "0190a5f2-7c1e-7b3a-9d55-0242ac120002", code=2).stderr
    assert "cannot be reached" in busy_house.run("wait", done, "--url", "http://127.0.0.1:9", code=2).stderr


def test_cancel_goes_on_after_what_it_cannot_cancel(busy_house: House) -> None:
    first, second = (busy_house.waiting("asks") for _ in range(2))
    nobody = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    done = busy_house.run("cancel", "bogus", first, "", "a/b?c#d", nobody, "..", second, code=2)
    assert first in done.stdout and second in done.stdout
    for id in ("bogus", "", "a/b?c#d", nobody, ".."):
        assert f"{id!r}" in done.stderr
    found = [busy_house.json("show", id)["execution"]["status"] for id in (first, second)]
    assert found == ["cancelled", "cancelled"], "they wait: no worker has to be told"


def _newest(house: House) -> Any:
    return house.json("ls", "-n", "1")


def test_run_with_json_prints_the_execution(busy_house: House) -> None:
    found = busy_house.json("run", "double", "--input", "[7]", "--tag", "team=blue", "--user", "ada", "--key", "seven")
    assert (found["status"], found["result"], found["user_id"]) == ("completed", [14], "ada")
    assert found["tags"] == {"team": "blue"}
    again = busy_house.run("run", "double", "--input", "[7]", "--key", "seven", "--json")
    assert json.loads(again.stdout)["id"] == found["id"]
    assert "with the key 'seven' and this input exists already; it is shown" in again.stderr
    assert busy_house.run("run", "double", "--input", "[7]", "--key", "seven", "--quiet").stderr == ""
    other = busy_house.run("run", "double", "--input", "[8]", "--key", "seven", code=2)
    assert f"Key 'seven' of workflow 'double' belongs to execution {found['id']!r}" in other.stderr
    detached = busy_house.run("run", "double", "--input", "[7]", "--detach").stdout.strip()
    assert busy_house.json("show", detached)["execution"]["id"] == detached


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "double", "--input", "{'id': 7}"), "is not JSON"),
        (("run", "double", "--input", "hello"), "a text needs its quotes"),
        (("run", "double", "--input", "@nothing.json"), "nothing.json: No such file"),
        (("run", "unheard_of"), "unheard_of"),
        (("run", "double", "--tag", "blue"), "NAME=VALUE"),
        (("run", "double", "--tag", "team=blue", "--tag", "team=red"), "gives 'team' two values, 'blue' and 'red'"),
        (("run", "double", "--budget", "dollars=2"), "--budget dollars=2: Object contains unknown field `dollars`"),
        (("run", "double", "--budget", "usd=2,usd_micros=3"), "Give either `usd` or `usd_micros`"),
        (("show", "nonsense"), "is not an execution id"),
        (("show", "0190a5f2-7c1e-7b3a-9d55-0242ac120002"), "does not exist"),
        (("ls", "--status", "done"), "'done' is not one of pending, running, completed, failed, cancelled"),
        (("ls", "--phase", ""), "'' is not one of queued"),
        (("ls", "--since", "yesterday"), "a time or an age, such as 2026-01-31T14:00, 15m or 7d"),
        (("ls", "--key-part", "x"), "'x' is too short; give at least 2 characters"),
        (("ls", "--error", "?!"), "'?!' has no word of 2 characters or more"),
        (("ls", "--field", "payload.id"), "must be a field and its value, such as payload.customer.id=7"),
        (("ls", "--field", "payload.id=7"), "No workflow declares payload.id as a searchable field"),
        (("ls", "--url", "localhost"), "is not the address of a server"),
        (("erase",), "--user or --session"),
        (("work", "nothing.py"), "File 'nothing.py' does not exist"),
        (("work", "app.py:nothing"), "has nothing called 'nothing'"),
        (("work", "no_such_module:registry"), "Module 'no_such_module' was not found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_one_sentence(busy_house: House, arguments: tuple[str, ...], says: str) -> None:
    told = busy_house.run(*arguments, code=2)
    assert says in told.stderr
    assert told.stderr.startswith("perdure: ")
    assert len(told.stderr.strip().splitlines()) == 1
    assert told.stdout == ""
    problem = json.loads(busy_house.run(*arguments, "--json", code=2).stderr)
    assert says in problem["error"] and problem["error_type"]


def test_ls_narrows_what_it_lists(busy_house: House) -> None:
    busy_house.run("run", "double", "--input", "[1]", "--session", "talk", "--tag", "kind=small", "-q")
    busy_house.run("run", "fails", "--session", "talk", "--key", "order-4711", "-q", code=1)
    both = busy_house.lines("ls", "--session", "talk")
    assert [one["workflow_id"] for one in both] == ["fails", "double"]
    for narrowed in (("--status", "completed"), ("--phase", "completed"), ("-w", "double"), ("--tag", "kind=small")):
        found = busy_house.lines("ls", "--session", "talk", *narrowed)
        assert [one["workflow_id"] for one in found] == ["double"], narrowed
    for narrowed in (("--error", "luck NO"), ("--key-part", "4711"), ("-w", "fails")):
        found = busy_house.lines("ls", "--session", "talk", *narrowed)
        assert [one["workflow_id"] for one in found] == ["fails"], narrowed
    assert [one["key"] for one in busy_house.lines("ls", "--tag", "kind", "--not-retried")] == [None]
    assert busy_house.lines("ls", "--session", "talk", "--since", "1h", "--before", "2100-01-01") == both
    assert busy_house.lines("ls", "--session", "talk", "--before", "1h") == []
    assert busy_house.lines("ls", "--user", "nobody") == []
    shown = busy_house.run("ls", "--session", "talk").stdout
    assert "WORKFLOW" in shown and "double" in shown and "no such luck" in shown
    assert "  [2]" in shown, "the outcome of what is completed is its result, not how far it was"
    assert "No executions match." in busy_house.run("ls", "--user", "nobody").stdout
    assert "--limit shows more" in busy_house.run("ls", "-n", "1").stderr


def test_a_reader_who_goes_away_is_no_failure(busy_house: House) -> None:
    """The reader `head -1` of `perdure run … 2>&1` leaves early. Code 1 would say that the execution has failed."""
    for arguments in (("run", "double", "--input", "[1]"), ("logs", _newest(busy_house)["id"])):
        reader, writer = os.pipe()
        os.close(reader)
        process = busy_house.start(*arguments, stdout=writer, stderr=writer)
        os.close(writer)
        assert process.wait(SECONDS) == 130


def test_ls_folds_children_into_their_roots_unless_it_is_asked_for_them(busy_house: House) -> None:
    id = busy_house.run("run", "hands_over", "--detach").stdout.strip()
    until_true(lambda: busy_house.lines("ls", "--parent", id))
    [child] = [one["id"] for one in busy_house.lines("ls", "--parent", id)]
    roots, every = ([one["id"] for one in busy_house.lines("ls", *options)] for options in ((), ("--all",)))
    assert id in roots and child not in roots and {id, child} <= {*every}
    assert child in [one["id"] for one in busy_house.lines("ls", "--workflow", "asks")]
    table = busy_house.run("ls").stdout
    assert "BELOW" in table and re.search(rf"{id} +hands_over .* 1\b", table)
    busy_house.run("cancel", id)


def test_show_limits_the_rows_of_the_journal(busy_house: House) -> None:
    id = busy_house.run("run", "double", "--input", "[1, 2, 3]", "--detach").stdout.strip()
    busy_house.run("wait", id)
    shown = busy_house.run("show", id, "--limit", "2")
    assert "body#2" not in shown.stdout and "body#3" in shown.stdout and "The newest 2 of " in shown.stderr
    assert len(busy_house.json("show", id, "--limit", "2")["steps"]) > 2


def test_show_tells_the_journal_and_what_is_waited_for(busy_house: House) -> None:
    asking, listening = busy_house.waiting("asks"), busy_house.waiting("listens")
    found = busy_house.json("show", asking)
    assert [(wait["key"], wait["data"]) for wait in found["waits"]] == [("approve", {"amount": 120})]
    assert found["served"] is True
    assert [step["kind"] for step in found["steps"]] == ["claimed", "waiting"]
    shown = busy_house.run("show", asking).stdout
    assert re.search(
        r"approve: an answer.*, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d$", shown, re.MULTILINE
    )  # as all times there
    assert "approve: an answer" in shown and "SEQ" in shown and "claimed" in shown
    assert f"perdure resume {asking} approve --data JSON" in shown and 'an answer, shows {"amount": 120}' in shown
    assert re.search(r"waiting +It has waited since \S+ for an answer to 'approve'", shown)
    shown = " ".join(busy_house.run("show", listening).stdout.split())
    assert shown.count("an event of topic 'orders' where {\"id\":7}") == 2, "why it waits, and the list of waits"
    napping = busy_house.waiting("naps")
    assert re.search(r"due +wakes at .+ \(in (2 h 0|1 h 59) min\)", busy_house.run("show", napping).stdout)
    assert re.search(r"waiting +It has waited since \S+ for its timer", busy_house.run("show", napping).stdout)
    busy_house.run("cancel", asking, listening, napping)
    assert busy_house.json("show", asking)["waits"] == []


def test_a_run_without_the_input_that_it_needs_says_how_to_give_one(busy_house: House) -> None:
    said = busy_house.run("run", "double", code=2).stderr
    assert "perdure run double --input JSON" in said


def test_show_of_what_has_completed_ends_with_no_traceback(busy_house: House) -> None:
    again = busy_house.run("run", "second_luck", "--detach").stdout.strip()
    until_true(lambda: busy_house.json("show", again)["execution"]["phase"] == "completed")
    shown = busy_house.run("show", again).stdout
    assert "no luck yet" in shown
    assert "Traceback" not in shown


def test_show_names_calls_whose_input_has_changed(house: House) -> None:
    with serving(house):
        with working(house):
            changed = house.waiting("changes", "--input", "1")
        (house.folder / "app.py").write_text(APP.replace("body(order)", "body(order + 1)"))
        with working(house):
            house.run("publish", "go")
            until_true(lambda: house.json("show", changed)["execution"]["phase"] == "completed")
        shown = house.run("show", changed).stdout
    assert "another input than the recorded one and got the recorded outcome: 'body'" in shown


def test_show_says_what_an_agent_asks_and_how_to_answer(busy_house: House) -> None:
    id = busy_house.waiting("waiter", "--input", '"tea"')
    shown = busy_house.run("show", id).stdout
    listed = busy_house.run("approvals").stdout
    assert 'Allow charge? arguments: {"euros": 3}' in " ".join(listed.split()) and "_form" not in listed
    assert re.search(r"^  Allow charge\?, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d$", shown, re.MULTILINE)
    assert "for an answer to 'Allow charge(euros=3)?'" in " ".join(shown.split())
    assert '    arguments: {"euros": 3}\n' in shown
    assert f"    perdure approve {id} approve_charge_1 --approve    (or --reject)\n" in shown
    assert """    with other arguments: --approve --data '{"arguments": {"euros": 3}}'\n""" in shown
    assert "or on its page: " in shown and "perdure resume" not in shown and "_form" not in shown
    busy_house.run("approve", id, "approve_charge_1", "--approve")


def test_a_run_may_be_a_turn_of_its_session(busy_house: House) -> None:
    first = busy_house.waiting("asks", "--session", "turns", "--on-conflict", "reject")
    again = ("run", "asks", "--session", "turns", "--detach", "--on-conflict")
    assert f"{first!r} has its turn" in busy_house.run(*again, "reject", code=2).stderr
    second = busy_house.run(*again, "queue").stdout.strip()
    found = busy_house.json("show", second)
    assert (found["execution"]["phase"], found["queued_behind"]["execution_ids"]) == ("queued", [first])
    shown = busy_house.run("show", second).stdout
    assert f"its turn in session 'turns', after execution {first}" in " ".join(shown.split()) and "9999" not in shown
    busy_house.run("resume", first, "approve", "--data", "1")
    until_true(lambda: busy_house.json("show", second)["execution"]["phase"] == "waiting")
    busy_house.run("resume", second, "approve", "--data", "2")
    until_true(lambda: busy_house.json("show", second)["execution"]["result"] == 2)


def test_answers_and_events_are_sent(busy_house: House) -> None:
    asking = busy_house.waiting("asks")
    said = busy_house.run("resume", asking, "approve", "--data", '{"yes": true}')
    assert said.stdout == f"{asking} goes on with the answer to 'approve'.\n" and said.stderr == ""
    until_true(lambda: busy_house.json("show", asking)["execution"]["result"] == {"yes": True})
    assert re.search(r"waiting +went on with resume approve\b", busy_house.run("show", asking).stdout)
    again = busy_house.run("resume", asking.upper(), "approve", "--data", '{"yes": true}')
    assert re.search(r"has this answer to 'approve' already: key .+ gave it at \d{4}-", again.stdout)
    for wrong in ("x", "é", "a b", "a/b", ""):
        assert busy_house.run("resume", wrong, "approve", code=2).stderr.startswith("perdure: ")
    refused = busy_house.run("resume", asking, "approve", "--data", "no", code=2)
    assert "a text needs its quotes" in refused.stderr
    late = busy_house.run("resume", asking, "approve", "--data", "1", code=2).stderr
    assert "completed already" in late and "was answered by" in late
    assert "No step has asked for it" in busy_house.run("resume", asking, "other", "--data", "1", code=2).stderr

    busy_house.run("pause", "workflow", "asks")
    early = busy_house.run("run", "asks", "--detach").stdout.strip()
    said = busy_house.run("resume", early, "approve", "-d", "-", input="[1]")
    busy_house.run("unpause", "workflow", "asks")
    assert "keeps the answer to 'approve'" in said.stdout and "one that asks a question will not" in said.stderr
    until_true(lambda: any(one["execution_id"] == early for one in busy_house.lines("approvals")))
    [shown] = [one for one in busy_house.lines("approvals") if one["execution_id"] == early]
    for command in ("resume", "approve"):
        unseen = busy_house.run(command, early, "approve", "-d", "[1]", code=2)
        assert "was answered before it asked" in unseen.stderr
    busy_house.run("approve", early, "approve", "-d", "[2]", "--question", shown["question"])
    until_true(lambda: busy_house.json("show", early)["execution"]["result"] == [2])

    listening = busy_house.run("run", "listens", "--detach").stdout.strip()
    assert busy_house.run("publish", "orders", "--data", '{"id": 6}').stdout == "Event 1 of topic 'orders'.\n"
    event = busy_house.json("publish", "orders", "--data", '{"id": 7}', "--type", "paid", "--dedup-key", "seven")
    assert event == {"topic": "orders", "sequence_id": 2}
    assert busy_house.json("publish", "orders", "--data", "8", "--dedup-key", "seven")["sequence_id"] == 2
    until_true(lambda: busy_house.json("show", listening)["execution"]["result"] == {"id": 7})
    assert "topic: " in busy_house.run("publish", "", code=2).stderr


def test_logs_follow_an_execution_to_its_end(busy_house: House) -> None:
    id = busy_house.run("run", "double", "--input", "[1, 2, 3, 4]", "--detach").stdout.strip()
    following = busy_house.run("logs", "-f", id).stdout
    assert "doubling 4 numbers" in following and "body#4" in following and "completed" in following
    assert busy_house.run("logs", id).stdout == following
    events = busy_house.lines("logs", id)
    assert [event["text"] for event in events if event["event"] == "log"] == ["doubling 4 numbers"]
    assert events[-1]["kind"] == "completed"


def test_erase_removes_what_belongs_to_a_user(busy_house: House) -> None:
    busy_house.run("run", "double", "--input", "[1]", "--user", "bob", "-q")
    waiting = busy_house.waiting("asks", "--user", "bob")
    assert busy_house.json("erase", "--user", "bob") == {"erased": 1, "open": 1}
    assert "1 are still open" in busy_house.run("erase", "--user", "bob").stdout
    busy_house.run("cancel", waiting)
    assert busy_house.json("erase", "--user", "bob") == {"erased": 1, "open": 0}


def test_nobody_who_serves_is_told(house: House) -> None:
    with serving(house):
        with working(house, "--deployment", "green"):
            id = house.run("run", "double", "--input", "[1]", "--delay", "60", "--detach").stdout.strip()
            assert "starts at" in house.run("show", id).stdout
        found = house.json("show", id)
        assert (found["served"], found["execution"]["phase"]) == (False, "queued")
        watched = house.run("run", "double", "--input", "[1]", "--timeout", "0.1", code=4)
        assert "goes on (queued). No worker serves deployment 'green'." in " ".join(watched.stderr.split())
        waited = house.run("wait", id, "--timeout", "0.1", code=4)
        assert "No worker serves deployment 'green' now." in " ".join(waited.stderr.split())
        assert "No worker serves deployment 'green' now." in " ".join(house.run("show", id).stdout.split())


def test_a_run_may_come_before_any_worker(house: House) -> None:
    with serving(house):
        assert "--accept-early" in house.run("run", "double", "--input", "[1]", code=2).stderr
        id = house.run("run", "double", "--input", "[1]", "--accept-early", "--detach").stdout.strip()
        assert house.json("show", id)["execution"]["phase"] == "queued"


@pytest.mark.slow
def test_a_run_outlives_its_watching_when_the_server_goes(house: House) -> None:
    with serving(house):
        with working(house, "--deployment", "green"):
            pass
        watched = house.start(
            "run",
            "double",
            "--input",
            "[1]",
            "--timeout",
            "3",
            "--json",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        until_true(lambda: house.lines("ls"))
        [one] = house.lines("ls")
        watched.send_signal(signal.SIGSTOP)  # so that the server goes before the time-out
    watched.send_signal(signal.SIGCONT)
    told, said = watched.communicate()
    assert watched.returncode == 4
    assert json.loads(told) == {"id": one["id"]}
    assert f"`perdure logs -f {one['id']}` watches it again" in said


def test_a_server_that_is_not_there_is_told_within_seconds(house: House) -> None:
    told = house.run("ls", "--url", "http://127.0.0.1:9", code=2)
    assert "cannot be reached at http://127.0.0.1:9 (connection refused)" in told.stderr
    assert "perdure dev" in told.stderr


def test_a_wrong_key_is_told(busy_house: House) -> None:
    key = busy_house.env.pop("PERDURE_API_KEY")
    try:
        assert "wants an API key: set PERDURE_API_KEY" in busy_house.run("ls", code=2).stderr
        busy_house.env["PERDURE_API_KEY"] = "sk_" + "a" * 8 + "_" + "b" * 32
        assert "not valid" in busy_house.run("ls", code=2).stderr
    finally:
        busy_house.env["PERDURE_API_KEY"] = key


def test_a_worker_waits_for_its_server_and_goes_on_after_a_kill(house: House) -> None:
    with serving(house):
        with working(house) as first:
            with house.holding(5):
                runner = house.start("run", "double", "--input", json.dumps(list(range(40))), stdout=subprocess.PIPE)
                house.until_body(5)
                first.terminate()
            assert first.wait(SECONDS) == 0
        with working(house) as second, house.holding(20):
            house.until_body(20)
            second.kill()
            second.wait()
        with working(house):
            assert runner.stdout is not None
            assert json.loads(runner.stdout.read()) == [2 * number for number in range(40)]
            assert runner.wait() == 0
            runner.stdout.close()
        # SIGTERM lets a step end; only the one in flight when SIGKILL came runs again.
        assert house.bodies() == [*range(21), *range(20, 40)]
        assert house.json("doctor")["ok"] is True


def test_a_second_signal_ends_a_worker_at_once(house: House) -> None:
    with serving(house), working(house) as worker:
        worker.send_signal(signal.SIGSTOP)
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGCONT)
        assert end(worker) in (0, 1)


STUBBORN = """
import asyncio
import threading
from pathlib import Path

from perdure import Context, Registry

registry = Registry()


async def swallows() -> None:
    Path("task").touch()
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass


def waits(name: str) -> None:
    Path(name).touch()
    threading.Event().wait()


async def leaves_it_to_a_thread() -> None:
    await asyncio.to_thread(waits, "another thread")


@registry.workflow
async def stubborn(ctx: Context) -> None:
    steps = ctx.step("task", swallows), ctx.step("thread", waits, "thread"), ctx.step("other", leaves_it_to_a_thread)
    await asyncio.gather(*steps)
"""


def test_step_code_that_cannot_be_stopped_does_not_keep_a_worker_from_its_end(house: House) -> None:
    (house.folder / "app.py").write_text(STUBBORN)
    with serving(house), working(house, "--grace", "0.2") as worker:
        id = house.run("run", "stubborn", "--detach").stdout.strip()
        until_true(lambda: all((house.folder / name).exists() for name in ("task", "thread", "another thread")))
        assert end(worker) == 0
        kinds = [line["kind"] for line in house.lines("logs", id) if "kind" in line]
        assert "released" in kinds and "lost" not in kinds


EXITS = """
import asyncio
import sys

from perdure import Context, Registry

registry = Registry()


def leaves() -> None:
    sys.exit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


END = {"exit": leaves, "interrupt": interrupts}


async def in_a_task(end: str) -> None:
    async def child() -> None:
        END[end]()

    await asyncio.create_task(child())


async def in_a_callback(end: str) -> str:
    asyncio.get_running_loop().call_soon(END[end])
    await asyncio.sleep(0)
    return "went on"


@registry.workflow
async def ends(ctx: Context, end: str) -> str:
    try:
        await ctx.step(END[end], retry=2)
    except Exception as error:
        ctx.log("%s", error)
    said = await ctx.step(in_a_callback, end)
    try:
        await ctx.step(in_a_task, end)
    except Exception as error:
        return f"{said}, {error}"
    return "not told"
"""


def test_steps_that_would_end_the_process_end_no_worker_and_ctrl_c_still_does(house: House) -> None:
    (house.folder / "app.py").write_text(EXITS)
    with serving(house), working(house) as worker:
        for end_by, name in (("interrupt", "KeyboardInterrupt"), ("exit", "SystemExit: 3")):
            done = house.run("run", "ends", "--input", json.dumps(end_by), "--quiet")
            assert f"went on, step 'in_a_task' failed: {name}" in done.stdout
        assert worker.poll() is None
        assert end(worker, signal.SIGINT) == 0


def test_a_code_that_cannot_be_imported_is_told_with_its_line(house: House) -> None:
    for text, says in (
        ("def f(:\n", "app.py:1: invalid syntax"),
        ("import perdure\n\nnonsense\n", "app.py:3: NameError: name 'nonsense' is not defined"),
        ("import no_such_thing\n", "app.py:1: No module named 'no_such_thing'"),
        ("x = 1\n", "has no workflows"),
        (
            "from perdure import workflow\n\n@workflow\nasync def orders(ctx, order: 'Nowhere') -> None: ...\n",
            "perdure: Workflow 'orders' of module app: The type hint 'Nowhere' of parameter 'order'",
        ),
    ):
        (house.folder / "app.py").write_text(text)
        assert says in house.run("work", "app.py", code=2).stderr


def test_help_answers_at_once(house: House) -> None:
    modules = subprocess.run(
        [sys.executable, "-c", "import sys, perdure.cli.main; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    slow = {
        "asyncio",
        "msgspec",
        "rich",
        "apsw",
        "uvicorn",
        "starlette",
        "httptools",
        "watchfiles",
        "perdure.sdk.clients.client",
    }
    assert slow & set(modules) == set()
    shown = house.run("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in shown
        group = ["create"] if command == "keys" else []
        one = house.run(command, *group, "--help").stdout
        assert "--json" in one and "<bool>" not in one, "a flag takes no value"
    assert house.run("--version").stdout.startswith("perdure ")
