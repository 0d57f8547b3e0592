"""The documentation as programs read it: pages, search, the skill."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from tests.cli.processes import House
from tests.documented import DOCS

from perdure.cli.main import app
from perdure.mcp import docs
from perdure.wire.base.errors import NotFound


def test_every_page_is_there_with_its_title_and_all_of_its_sections() -> None:
    assert set(docs.pages()) == {path.relative_to(DOCS).as_posix().removesuffix(".md") for path in DOCS.rglob("*.md")}
    for page in docs.pages().values():
        assert page.title and page.title in page.text
        words = "".join(section.text for section in docs.sections(page)).split()
        assert len(words) > 0.8 * len(page.text.split()) - 40, page.name


def test_a_page_is_found_by_its_name_and_by_the_last_part_of_it() -> None:
    assert docs.page("workflows.md") is docs.page("Workflows") is docs.pages()["workflows"]
    (long,) = [name for name in docs.pages() if name.endswith("0001-statements-on-the-loop")]
    assert docs.page("0001-statements-on-the-loop").name == long
    with pytest.raises(NotFound, match="Did you mean 'workflows'"):
        docs.page("workflow")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("idempotency key of a step that ran twice", "idempotency_key"),
        ("rotate the signing secret", "rotate"),
        ("cron expression and time zones", "cron"),
        ("raise a budget", "budget raise"),
        ("failover of postgres to a standby", "standby"),
    ],
)
def test_a_search_finds_the_sections_that_explain_it(words: str, text: str) -> None:
    found = docs.search(words, 5)
    assert len(found) == 5 and sum(text in one.text.lower() for one in found) >= 2, [one.heading for one in found]


def test_a_search_without_known_words_finds_nothing() -> None:
    assert docs.search("xyzzy plugh") == [] == docs.search("")


def test_a_line_of_code_is_not_a_heading() -> None:
    page = docs.DocsPage("p", "T", "# T\n\n```\n# no heading\n```\n\n## Next\n\nmore")
    assert [(one.heading, one.text) for one in docs.sections(page)] == [
        ("T", "```\n# no heading\n```"),
        ("Next", "more"),
    ]


def test_the_command_lists_pages_shows_one_and_searches(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert [one["page"] for one in house.lines("docs")] == list(docs.pages())
    assert house.run("docs", "workflows").stdout == docs.page("workflows").text + "\n"
    found = house.lines("docs", "signing", "secret")
    assert {tuple(one) for one in found} == {("page", "heading", "text")} and found[0]["page"] == "webhooks"
    assert "No page has these words." in house.run("docs", "xyzzy").stdout


def test_a_build_without_documentation_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    monkeypatch.setattr(docs, "_texts", lambda *_: iter(()))
    monkeypatch.setattr(docs, "pages", docs.pages.__wrapped__)
    monkeypatch.setattr(docs, "_index", docs._index.__wrapped__)
    for words in ([], ["workflows"], ["signing", "secret"]):
        assert "build the wheel with `make dist`" in house.run("docs", *words, code=2).stderr


def test_the_skill_is_written_where_coding_agents_look(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run("skill", "install")
    file = house.folder / ".agents" / "skills" / "perdure" / "SKILL.md"
    assert file.read_text(encoding="utf-8") == docs.skill()
    house.run("skill", "install", "elsewhere")
    assert (house.folder / "elsewhere" / "perdure" / "SKILL.md").exists()


def test_the_skill_names_commands_and_pages_that_exist() -> None:
    text = docs.skill()
    assert re.match(r"---\nname: perdure\ndescription: .{50,1000}\n---\n", text)
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    called = [shlex.split(line, comments=True) for line in re.findall(r"(?:^    |`)perdure ([a-z][^`\n]*)", text, re.M)]
    assert len(called) > 10 and {words[0] for words in called} <= set(known)
    for words in called:
        if words[0] == "docs" and len(words) == 2:
            assert docs.page(words[1])
