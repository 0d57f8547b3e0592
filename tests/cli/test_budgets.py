"""`perdure budget`: what is spent, and more of it."""

from tests.cli.processes import House, until_true


def test_a_budget_is_shown_and_raised(busy_house: House) -> None:
    house = busy_house
    id = house.run("run", "spends", "--detach").stdout.strip()
    until_true(lambda: any(one["execution_id"] == id for one in house.lines("approvals")))
    shown = house.run("budget", "show", id).stdout
    assert "US dollars" in shown and "2.0000" in shown
    assert f"`perdure budget raise {id}`" in shown
    assert house.json("budget", "show", id)["calls"] == {"spent": 1, "reserved": 0, "limit": 1}
    assert "Say what to add" in house.run("budget", "raise", id, code=2).stderr
    assert "ask, finish or fail" in house.run("budget", "raise", id, "--on-exceed", "x", code=2).stderr
    assert "no limit of 'tokens'" in house.run("budget", "raise", id, "--tokens", "1", code=2).stderr
    raised = house.run("budget", "raise", id, "--calls", "5", "--usd", "0.5").stdout
    assert f"The budget of {id} is raised" in raised and "2.5000" in raised
    until_true(lambda: house.json("budget", "show", id)["calls"]["spent"] == 2)
    other = house.run("run", "asks", "--detach").stdout.strip()
    assert "has no budget" in house.run("budget", "show", other, code=2).stderr
