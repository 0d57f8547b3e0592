"""`perdure retry` and `perdure fork`: output and effect."""

from tests.cli.processes import House


def test_an_execution_is_forked_and_retried(busy_house: House) -> None:
    house = busy_house
    id = house.run("run", "double", "--input", "[4]", "--key", "four", "--detach").stdout.strip()
    house.run("wait", id)
    fork = house.json("fork", id, "--payload", "[5]", "--key", "five", "--note", "why not")
    assert (fork["forked_from"], fork["key"]) == (id, "five")
    assert house.run("wait", fork["id"]).stdout.strip() == "[10]"
    said = house.run("retry", id).stdout
    retry = said.split()[0]
    assert f"{retry} runs {id} again" in said
    assert house.run("wait", retry).stdout.strip() == "[8]"
    shown = house.run("show", id).stdout
    assert retry in shown
    assert id in house.run("show", retry).stdout
    refused = house.run("retry", id, fork["id"], code=2)
    assert f"was retried as '{retry}'" in refused.stderr
    assert f"runs {fork['id']} again" in refused.stdout, "the other one is retried"
    assert "has no step 'x'" in house.run("fork", id, "--from", "x", code=2).stderr
    assert "--set is STEP=JSON" in house.run("fork", id, "--set", "x", code=2).stderr


def test_a_retry_after_a_refund_asks_what_becomes_of_it(busy_house: House) -> None:
    house = busy_house
    id = house.run("run", "refunded", "--detach", "--key", "money-back").stdout.strip()
    house.run("wait", id, code=1)
    why = house.run("why", id).stdout
    assert "After the failure its code called 'refund'" in why and f"perdure retry {id} --redo-later" in why
    refused = house.run("retry", id, code=2).stderr
    assert "recorded 'refund' after the failure" in refused
    assert f"perdure retry {id} --keep-later, --redo-later or --from STEP" in refused
    bulk = ("bulk", "retry", "--key", "money-back")
    assert "1 of them called further steps after the failure" in house.run(*bulk, "--dry-run").stdout
    assert house.json(*bulk, "--yes")["refused"] == 1
    assert house.json(*bulk, "--keep-later", "--yes")["done"] == 1
    retry = house.json("show", id)["execution"]["retried_as"]
    house.run("wait", retry, code=None)
    shown = house.run("show", retry).stdout.splitlines()
    assert [line for line in shown if " refund " in line and " kept " in line], shown
    assert not [line for line in shown if " -" in line and " ms" in line], shown
