"""Builds the site from docs/ into build/site: `make docs`.

Each page lies there as HTML and as Markdown, and llms.txt lists them. A broken link fails the build, and so does a page
that the nav of zensical.toml leaves out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts import learn, reference

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "docs"
CONFIG: Final = "zensical.toml"
CELL: Final = re.compile(r"<td.*?</td>", re.DOTALL)
"""A cell of a table. Python-Markdown shows the backslash of `a \\| b` in code there, which GitHub needs."""


class Entry(NamedTuple):
    part: str
    title: str
    path: str


def entries(nav: list[dict[str, Any]], part: str = "") -> Iterator[Entry]:
    """The pages of a nav, each with the part of the site that it belongs to."""
    for item in nav:
        for title, below in item.items():
            if isinstance(below, str):
                yield Entry(part, title, below)
            else:
                yield from entries(below, part or title)


def description(markdown: str) -> str:
    """The first sentence of a page outside of headings, code, tables and lists, without its links."""
    text = re.sub(r"^```.*?^```|^(?:#|\||<|- |  )[^\n]*$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    firsts = (re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0] for paragraph in plain.split("\n\n"))
    return next((first for first in firsts if first.endswith(".")), "")


def project() -> dict[str, Any]:
    """The settings of the site."""
    return dict(tomllib.loads((ROOT / CONFIG).read_text(encoding="utf-8"))["project"])


def index(pages: list[Entry], docs: Path) -> str:
    """llms.txt: all pages by part, for programs that read them."""
    settings = project()
    lines = [f"# {settings['site_name']}", "", f"> {settings['site_description']}"]
    for part in dict.fromkeys(page.part for page in pages if page.part):
        lines += ["", f"## {part}", ""]
        for page in (page for page in pages if page.part == part):
            text = (docs / page.path).read_text(encoding="utf-8")
            lines.append(f"- [{text.splitlines()[0].strip('# ')}]({page.path}): {description(text)}".removesuffix(": "))
    return "\n".join(lines) + "\n"


def write_pages(docs: Path) -> None:
    """All pages as Markdown: those of docs/, and the Python reference.

    Each page of Learn ends with the whole program, for readers who begin in the middle.
    """
    shutil.copytree(SOURCE, docs)
    for path, text in reference.pages().items():
        (docs / path).parent.mkdir(exist_ok=True)
        (docs / path).write_text(text, encoding="utf-8")
    for page in learn.PAGES[1:]:
        with (docs / "learn" / f"{page}.md").open("a", encoding="utf-8") as file:
            for name, text in learn.files(page).items():
                file.write(f"\n## {name} after this page\n\n```python\n{text}```\n")


def build(root: Path = ROOT) -> list[str]:
    """Build the site; return what is wrong with it."""
    settings = project()
    docs, site = (root / settings[name] for name in ("docs_dir", "site_dir"))
    for folder in (docs, site):
        shutil.rmtree(folder, ignore_errors=True)
    write_pages(docs)
    pages = list(entries(settings["nav"]))
    found = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if lost := found - {page.path for page in pages}:
        return [f"docs/{path}: add it to the nav of {CONFIG}" for path in sorted(lost)]
    if root != ROOT:
        shutil.copy(ROOT / CONFIG, root)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if built.returncode:
        return [re.sub(r"\x1b\[[0-9;]*m", "", built.stdout).partition("Traceback")[0]]
    for path in found:
        shutil.copy(docs / path, site / path)
    for page in site.rglob("*.html"):
        page.write_text(CELL.sub(lambda cell: cell[0].replace("\\|", "|"), page.read_text("utf-8")), encoding="utf-8")
    (site / "llms.txt").write_text(index(pages, docs), encoding="utf-8")
    return []


def main() -> int:
    errors = build()
    print(*errors or [f"site: built, see {ROOT / 'build' / 'site' / 'index.html'}"], sep="\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
