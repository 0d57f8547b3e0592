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


def test_last_words_are_never_shown_without_the_end_of_their_budget(busy_house: House) -> None:
    house = busy_house
    ran = house.run("run", "runs_out", "--input", '"Will it rain?"', "--quiet")
    [one] = house.lines("ls", "--workflow", "runs_out")
    early = "ended early (budget): The budget is used up."
    assert (ran.stdout, ran.stderr) == ('"let me see"\n', f"{one['id']} {early}\n")
    assert early in house.run("ls", "--workflow", "runs_out").stdout
    assert f"outcome     {early}" in house.run("show", one["id"]).stdout
    assert f"It {early}" in house.run("why", one["id"]).stdout


def test_a_shared_budget_is_set_shown_raised_and_deleted(busy_house: House) -> None:
    house = busy_house
    assert "makes one" in house.run("budget").stdout
    made = house.run("budget", "set", "users", "--per", "user", "--period", "day", "--calls", "1").stdout
    assert made == "Shared budget 'users' counts per user and day: calls=1; used up, it will ask.\n"
    assert (
        "Delete it before it counts per user"
        in house.run("budget", "set", "users", "--per", "user", "--usd", "1", code=2).stderr
    )
    id = house.run("run", "spends", "--user", "ann", "--detach").stdout.strip()
    until_true(lambda: any(one["execution_id"] == id for one in house.lines("approvals")))
    assert "The budget 'users' of user 'ann' is used up" in house.run("approvals").stdout
    [balance] = house.lines("budget", "show", "users", "--key", "ann")
    table = house.run("budget", "show", "users").stdout
    assert "ann" in table and "1 of 1" in table and balance["execution_id"] in table
    shown = house.run("budget", "show", balance["execution_id"]).stdout
    assert "Balance of 'ann' in shared budget 'users' until " in shown and "seconds" not in shown
    house.run("budget", "raise", balance["execution_id"], "--calls", "1")
    assert house.lines("budget", "show", "users")[0]["calls"]["limit"] == 2
    assert house.run("budget", "ls").stdout.splitlines()[1].split() == ["users", "user", "day", "1", "ask"]
    assert house.run("budget", "delete", "users").stdout == "Shared budget 'users' is deleted.\n"
    assert "does not exist" in house.run("budget", "show", "users", code=2).stderr
