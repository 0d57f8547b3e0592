"""`perdure chat`, at a terminal."""

import json
import signal

import pytest
from tests.cli.processes import House, Terminal, serving, until_true, working

LOOKS = """
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from perdure import Budget
from perdure.agents import durable


def again_and_again(messages, info):
    if info.function_tools:
        return ModelResponse([ToolCallPart("look", {"n": 1}, f"call{len(messages)}")])
    return ModelResponse([TextPart("I have seen it.")])


agent = Agent(FunctionModel(again_and_again), name="looks")


@agent.tool_plain
def look(n: int) -> str:
    return "nothing new"


looks = durable(agent, budget=Budget(usd=7, calls=1), price=lambda model, usage: 0.5, watchdog=3)
"""


def test_a_chat_shows_words_tools_and_questions_as_they_come(busy_house: House) -> None:
    with Terminal(busy_house, "chat", "waiter", "--session", "table 7", "--user", "ann") as terminal:
        terminal.expect("session table 7")
        terminal.expect("ann> ")
        terminal.press("tea\n")
        terminal.expect("waiter> One tea, coming.\n")
        terminal.expect("  charge(euros=3)\n")
        terminal.expect("allow charge(euros=3)?\n")
        terminal.expect("[y]es, [n]o, [e]dit> ")
        terminal.press("e\n")
        terminal.expect("(a JSON object)> ")
        terminal.press("3\n")
        terminal.expect("that is not a JSON object")
        terminal.expect("[e]dit> ")
        terminal.press("e\n")
        terminal.expect("(a JSON object)> ")
        terminal.press('{"euros": 2}\n')
        terminal.expect('  charge → approved=true, arguments={"euros": 2}\n')
        terminal.expect("waiter> Enjoy!\n")
        terminal.expect("ann> ")
        terminal.press("cake\n")
        terminal.expect("[e]dit> ")
        terminal.press("n\n")
        terminal.expect("why not (may be empty)> ")
        terminal.press("too dear\n")
        terminal.expect('approved=false, feedback="too dear"')
        terminal.expect("ann> ")
        terminal.press("\x04")
        assert terminal.close() == 0
    found = busy_house.lines("ls", "--session", "table 7")
    assert len(found) == 2 and {one["user_id"] for one in found} == {"ann"}


def test_a_chat_asks_what_a_budget_and_the_watchdog_ask_as_the_other_places_do(house: House) -> None:
    (house.folder / "app.py").write_text(LOOKS)
    with serving(house), working(house), Terminal(house, "chat", "looks") as terminal:
        terminal.expect("you> ")
        terminal.press("look at it\n")
        shown = terminal.expect("[y]es, [n]o, [e]dit> ")
        asks = "1 of 1 calls. Approve to raise it, reject to end with what there is."
        assert f"The budget is used up\n  {asks}\n" in shown
        assert "  Raise by (calls): 1\n" in shown
        terminal.press("e\n")
        terminal.expect("Raise by (US dollars)> ")
        terminal.press("\n")
        terminal.expect("Raise by (calls) [1]> ")
        terminal.press("many\n")
        terminal.expect("This must be a whole number.\n")
        terminal.expect("Raise by (calls) [1]> ")
        terminal.press("4\n")
        shown = terminal.expect("[y]es, [n]o> ")
        assert "look gave the same 3 times in a row. Go on?\n" in shown
        assert '  arguments: "{\\"n\\":1}"\n' in shown and "  times: 3\n" in shown
        assert "The budget is used up" not in shown
        terminal.press("y\n")
        terminal.expect("5 of 5 calls")
        terminal.expect("  Raise by (calls): 5\n")
        terminal.expect("[e]dit> ")
        terminal.press("y\n")
        terminal.expect("look gave the same 3 times in a row. Go on?\n")
        terminal.expect("[y]es, [n]o> ")
        terminal.press("n\n")
        assert "why not" not in terminal.expect("looks> I have seen it.\n")
        terminal.expect("you> ")
        terminal.press("exit\n")
        assert terminal.close() == 0


def test_a_program_may_chat_in_lines_of_json(busy_house: House) -> None:
    said = 'tea\n{"approved": true, "arguments": {"euros": 2}}\n\n'
    shown = busy_house.run("chat", "waiter", "--session", "table 8", "--json", input=said).stdout
    events = [json.loads(line) for line in shown.splitlines()]
    assert events[0] == {"event": "session", "session_id": "table 8"}
    assert [one["event"] for one in events if one["event"] != "item"] == ["session", "question", "result"]
    [asked] = [one for one in events if one["event"] == "question"]
    assert asked["data"]["data"]["arguments"] == {"euros": 3}
    assert {"function_tool_call", "function_tool_result"} <= {one.get("kind") for one in events}
    [found] = busy_house.lines("ls", "--session", "table 8")
    assert events[-1] == {"event": "result", "execution_id": found["id"], "result": "Enjoy!"}


@pytest.mark.slow
def test_a_chat_may_be_refused_while_another_has_its_turn(busy_house: House) -> None:
    first = busy_house.run("run", "asks", "--session", "two", "--on-conflict", "queue", "--detach").stdout.strip()
    with Terminal(busy_house, "chat", "waiter", "--session", "two", "--on-conflict", "reject") as terminal:
        terminal.expect("you> ")
        terminal.press("tea\n")
        terminal.expect(f"Execution {first!r} has its turn in session 'two'")
        terminal.expect("you> ")
        terminal.press("\x04")
        assert terminal.close() == 0
    busy_house.run("cancel", first)


@pytest.mark.slow
def test_ctrl_c_stops_what_the_agent_does_and_not_the_chat(busy_house: House) -> None:
    with Terminal(busy_house, "chat", "waiter", "--session", "stopped") as terminal:
        terminal.expect("you> ")
        terminal.press("soup\n")
        terminal.expect("[e]dit> ")
        # Python reads the line once it has shown what it asks, and would not hear of a signal that comes in between.
        until_true(terminal.reads_keys)
        terminal.process.send_signal(signal.SIGINT)
        terminal.expect("stopped")
        terminal.expect("you> ")
        terminal.press("exit\n")
        assert terminal.close() == 0
    until_true(lambda: busy_house.lines("ls", "--session", "stopped")[0]["status"] == "cancelled")


def test_a_chat_with_nobody_is_refused(busy_house: House) -> None:
    assert "nobody" in busy_house.run("chat", "nobody", code=2).stderr
