"""The rules of admission stand once: the statements that claim are made of them."""

from importlib.resources import files

import pytest

from perdure.store.base.statements import load, parse, spelled_out, texts, with_rules
from perdure.store.verbs.runs.admission import GroupRoom, room
from perdure.wire.runs.admission import Rule

RULES = (files("perdure.store") / "sql" / "common" / "admission.sql").read_text(encoding="utf-8")
CLAIMS = (
    *("ready_sizes", "ready_sizes_between", "ready_sizes_limited"),
    *("claim_executions", "claim_between", "claim_limited"),
)


def test_a_rule_is_a_condition_of_claims_and_a_column_of_explanations() -> None:
    rules = with_rules("-- rule: old\nage > :age OR age IS NULL\n\n-- rule: red\ncolour = 'red'\n")
    text = f"{rules}\n-- name: q\nSELECT {{= verdicts}} FROM t WHERE {{= admitted}} AND NOT ({{= rule_red}});\n"
    assert " ".join(parse(text, "file.sql")["q"].sql.split()) == (
        "SELECT CASE WHEN age > ?1 OR age IS NULL THEN 1 ELSE 0 END AS old, "
        "CASE WHEN colour = 'red' THEN 1 ELSE 0 END AS red FROM t "
        "WHERE (age > ?1 OR age IS NULL) AND (colour = 'red') AND NOT (colour = 'red')"
    )


def test_the_file_has_the_order_of_the_rules() -> None:
    [verdicts] = [one.sql for one in parse(with_rules(RULES) + "\n-- name: q\nSELECT {= verdicts};\n", "f").values()]
    names = [line.rpartition(" AS ")[2].rstrip(",") for line in verdicts.splitlines() if " AS " in line]
    assert names == [rule.value for rule in Rule if rule.value in names]
    others = {Rule.TURN, Rule.QUEUE_LIMIT, Rule.KEY_LIMIT, Rule.WORKER, Rule.CAPACITY, Rule.ORDER}
    assert {rule.value for rule in Rule} - set(names) == others


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_asks_for_every_rule(dialect: str, name: str) -> None:
    [admitted] = parse(with_rules(RULES) + "\n-- name: q\nSELECT 1 WHERE {= admitted};\n", "f", dialect).values()
    assert _conditions(admitted.sql) in _conditions(load(dialect)[name].sql)


def test_nothing_else_claims() -> None:
    """Direct dispatch of a woken execution checks the rules that a start did not."""
    claiming = {
        part.partition("\n")[0]
        for source, text in texts("common")
        for part in spelled_out(text, source).split("-- name: ")[1:]
        if "assigned_to_worker = :worker_id, acked = 0" in part
    }
    assert claiming == {"claim_executions", "claim_between", "claim_limited", "deliver_and_claim"}


def _conditions(sql: str) -> str:
    without_numbers = "".join(" " if char.isdigit() or char in "?$" else char for char in sql)
    return " ".join(without_numbers.partition("WHERE")[2].split())


@pytest.mark.parametrize(
    ("group", "free", "reached"),
    [
        (GroupRoom(3, 1, None, None), 2, None),
        (GroupRoom(3, 1, 2, 1), 1, None),
        (GroupRoom(3, 3, 2, 1), 0, Rule.QUEUE_LIMIT),
        (GroupRoom(3, 4, 2, 3), 0, Rule.QUEUE_LIMIT),
        (GroupRoom(3, 2, 2, 2), 0, Rule.KEY_LIMIT),
        (GroupRoom(0, 0, None, None), 0, Rule.QUEUE_LIMIT),
    ],
)
def test_the_narrower_limit_decides(group: GroupRoom, free: int, reached: Rule | None) -> None:
    assert room(group) == (free, reached)


def test_without_limits_there_is_room() -> None:
    free, reached = room(GroupRoom())
    assert free > 1 << 32
    assert reached is None
