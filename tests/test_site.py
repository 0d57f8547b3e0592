"""The site builds with strict links, has each page as HTML and as Markdown, and loads nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import reference, website

import perdure.agents
import perdure.testing


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    assert website.build(root) == []
    return root / "build" / "site"


def test_each_page_is_html_and_markdown_and_in_the_index(built: Path) -> None:
    index = (built / "llms.txt").read_text(encoding="utf-8")
    for page in website.SOURCE.rglob("*.md"):
        path = page.relative_to(website.SOURCE)
        assert (built / path).read_bytes().startswith(page.read_bytes())
        assert (built / path.with_suffix(".html")).exists()
        assert f"({path.as_posix()})" in index or path.name == "index.md"
    assert "| " not in index and "```" not in index


def test_the_python_reference_has_every_public_name_with_its_docstring() -> None:
    pages = reference.pages()
    headings = {line.removeprefix("## ") for text in pages.values() for line in text.splitlines()}
    assert {*perdure.__all__, *perdure.agents.__all__, *perdure.testing.__all__, *reference.EMBEDDED} <= headings
    for path, text in pages.items():
        for entry in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            words = re.sub(r"^```.*?^```", "", entry, flags=re.MULTILINE | re.DOTALL).split()
            assert len(words) > 1 or path.endswith("records.md"), f"{path}: {entry}"


def test_pages_load_nothing_from_elsewhere(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|source|link rel="(?:stylesheet|preload)")[^>]*(?:src|href)="([^"]*)"', text
        )
        assert loaded and not [url for url in loaded if url.startswith(("http:", "https:", "//"))], page


def test_cells_of_tables_show_no_escapes(built: Path) -> None:
    page = (built / "reference" / "client.html").read_text(encoding="utf-8")
    assert "<code>str | None</code>" in page and r"str \| None" not in page


def test_a_broken_link_or_a_page_outside_of_the_nav_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    monkeypatch.setattr(website, "SOURCE", docs)
    for path in (entry.path for entry in website.entries(website.project()["nav"])):
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text("# A page\n\nWithout links.\n")
    assert website.build(tmp_path) == []
    (docs / "index.md").write_text("# Home\n\n[a heading](client.md#that-is-not-there)\n")
    assert "anchor does not exist" in website.build(tmp_path)[0]
    (docs / "lost.md").write_text("# Lost\n")
    assert website.build(tmp_path) == ["docs/lost.md: add it to the nav of zensical.toml"]
