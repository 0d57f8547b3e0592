"""The documentation of this release: pages, and a search over sections.

A release has the pages in `perdure/docs`. A clone reads the folder `docs`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, NamedTuple

from perdure.wire.base.errors import NotFound
from perdure.wire.base.wording import did_you_mean

HEADING_WEIGHT: Final = 4
"""Words of the text for which a heading's word counts."""
SATURATION: Final = 1.2
"""The saturation of BM25: repeating a word adds less each time."""


class DocsPage(NamedTuple):
    name: str
    """The path without `.md`: `workflows`, `decisions/0001-statements-on-the-loop`."""
    title: str
    text: str


class Section(NamedTuple):
    page: str
    heading: str
    text: str


class _Index(NamedTuple):
    sections: list[tuple[Section, Counter[str]]]
    found_in: Counter[str]
    usual_words: float


@cache
def pages() -> dict[str, DocsPage]:
    """Pages sorted by name. Raises `NotFound` in a build without documentation."""
    found = {name: DocsPage(name, _title(text), text) for name, text in _texts(_folder(), "")}
    if not found:
        raise NotFound(
            "This build of Perdure carries no documentation. Install a release, or build the wheel with `make dist`."
        )
    return dict(sorted(found.items()))


def page(name: str) -> DocsPage:
    """A page by name, or by the name's last part. Raises `NotFound`."""
    wanted = name.strip().removesuffix(".md").strip("/").lower()
    by_last = {known.lower().rpartition("/")[2]: found for known, found in reversed(pages().items())}
    found = {known.lower(): one for known, one in pages().items()}.get(wanted) or by_last.get(wanted)
    if found is not None:
        return found
    hint = did_you_mean(wanted, pages())
    raise NotFound(f"The documentation has no page {name!r}.{hint} Its pages are: {', '.join(pages())}.")


def search(words: str, limit: int = 5) -> list[Section]:
    index = _index()
    wanted = set(_stems_of(words))
    scored = [(score, at) for at, (_, own) in enumerate(index.sections) if (score := _score(own, wanted, index)) > 0]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [index.sections[at][0] for _, at in scored[:limit]]


def sections(found: DocsPage) -> Iterator[Section]:
    """A page cut at headings. Lines of code with # in front are not headings."""
    heading, lines, in_code = found.title, list[str](), False
    for line in found.text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        if not in_code and (headed := _HEADING.match(line)):
            if any(lines):
                yield Section(found.name, heading, "\n".join(lines).strip())
            heading, lines = headed[1], []
        else:
            lines.append(line)
    if any(lines):
        yield Section(found.name, heading, "\n".join(lines).strip())


def skill() -> str:
    return (files("perdure.mcp") / "skill.md").read_text(encoding="utf-8")


def _folder() -> Traversable:
    in_wheel = files("perdure") / "docs"
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[3] / "docs"


def _texts(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for one in folder.iterdir() if folder.is_dir() else ():
        if one.is_dir():
            yield from _texts(one, f"{prefix}{one.name}/")
        elif one.name.endswith(".md"):
            yield prefix + one.name.removesuffix(".md"), one.read_text(encoding="utf-8")


def _title(text: str) -> str:
    headed = _HEADING.search(text)
    return headed[1] if headed else ""


@cache
def _index() -> _Index:
    indexed = [(one, _count(one)) for found in pages().values() for one in sections(found)]
    found_in = Counter(word for _, words in indexed for word in words)
    return _Index(indexed, found_in, sum(words.total() for _, words in indexed) / max(1, len(indexed)))


def _count(section: Section) -> Counter[str]:
    counted = Counter(_stems_of(section.text))
    for word in [*_stems_of(section.heading), *_stems_of(section.page)]:
        counted[word] += HEADING_WEIGHT
    return counted


def _score(words: Counter[str], wanted: set[str], index: _Index) -> float:
    length = 0.25 + 0.75 * words.total() / index.usual_words
    return sum(
        math.log(1 + len(index.sections) / index.found_in[word]) * times / (times + SATURATION * length)
        for word in wanted
        if (times := words[word])
    )


def _stems_of(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text.lower())]


def _stem(word: str) -> str:
    """
    >>> [_stem(word) for word in ("retries", "retry", "steps", "waiting", "class")]
    ['retry', 'retry', 'step', 'wait', 'class']
    """
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


_HEADING: Final = re.compile(r"^#{1,6} +(.+?)\s*#*$", re.MULTILINE)
_WORD: Final = re.compile(r"[a-z0-9]{2,}")
