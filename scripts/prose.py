"""Checks the English of src/perdure (docstrings, comments, messages) and of the pages. `make check` runs it.

Each sentence that breaks a rule is an error, unless its file stands in `unfinished.txt`. A file that passes leaves that
list, and never comes back.

    python -m scripts.prose src/perdure/agents    # all errors of these files or folders, and the rates of each file
    python -m scripts.prose --shrink              # take the files that pass out of unfinished.txt
"""

from __future__ import annotations

import ast
import io
import re
import sys
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "perdure"
PAGES: Final = (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs")

RULES: Final = {
    "vague": re.compile(r"(?i)\b(?:whoever|whatever|whichever|somebody|nobody|someone|anybody)\b"),
    "clause": re.compile(
        r"(?i)^\W*(?:what|who|whose|those (?:that|who|whose|which|of|in|among|up|with|without|below|above))\b"
        r"(?!.*\?\**$)"
    ),
    "is no": re.compile(r"\b(?i:is|are|was|were) (?:no|none)\b(?! (?:longer|more|less|later|earlier)\b)"),
    "long": re.compile(r"(?:\S+ ){35}\S"),
}

ADVICE: Final = {
    "vague": "name the caller, the worker, the server …",
    "clause": "begin with a named thing",
    "is no": "negate the verb: is not a step",
    "long": "at most 35 words",
}
UNFINISHED: Final = ROOT / "scripts" / "unfinished.txt"

CODE: Final = re.compile(r"``[^`]+``|`[^`]+`|'[^' ]+'|\"[^\" ]+\"|https?://\S+")
SENTENCE_ENDS: Final = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)[)\"'*]*\s+")
DIRECTIVE: Final = re.compile(r"# *(?:type:|noqa|pragma|fmt:|ruff:)[^#]*")
MESSAGE_WORDS_MIN: Final = 4
"""A string or a cell of a table with fewer words is a name or a value."""

FENCE: Final = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"!?\[([^]]*)\]\([^)]*\)")

Kind = Literal["docstring", "comment", "message", "page"]


class Text(NamedTuple):
    line: int
    kind: Kind
    text: str


class Sentence(NamedTuple):
    line: int
    text: str
    bare: str
    """The text with one sign in place of each piece of code, which may hold spaces and full stops."""


class Offence(NamedTuple):
    line: int
    rule: str
    text: str


class Report(NamedTuple):
    words: Counter[Kind]
    offences: list[Offence]

    def count(self, rule: str) -> int:
        return sum(offence.rule == rule for offence in self.offences)

    def rate(self, rule: str) -> float:
        """Offences per 1,000 words."""
        return 1000 * self.count(rule) / max(self.words.total(), 1)


def modules(paths: Iterable[Path] = (SOURCE,), suffix: str = ".py") -> list[Path]:
    files = (found for path in paths for found in (path.rglob(f"*{suffix}") if path.is_dir() else [path]))
    return sorted(path for path in files if path.suffix == suffix)


def report(source: str, *, is_page: bool = False) -> Report:
    """Measure a module or a page."""
    words: Counter[Kind] = Counter()
    offences = []
    for text in page_texts(source) if is_page else texts(source):
        for sentence in sentences(text):
            words[text.kind] += len(sentence.bare.split())
            offences += [
                Offence(sentence.line, rule, sentence.text)
                for rule, pattern in RULES.items()
                if pattern.search(sentence.bare)
            ]
    return Report(words, sorted(offences))


def together(reports: Iterable[Report]) -> Report:
    words: Counter[Kind] = Counter()
    offences = []
    for one in reports:
        words += one.words
        offences += one.offences
    return Report(words, offences)


def texts(source: str) -> Iterator[Text]:
    """The English of a module. Strings below fields and constants are docstrings, too."""
    yield from _strings(ast.parse(source))
    yield from _comments(source)


def page_texts(source: str) -> Iterator[Text]:
    """The paragraphs, items and table cells of a page, without its code, links and headings."""
    without = FENCE.sub(lambda found: "\n" * found[0].count("\n"), source)
    without = LINK.sub(lambda found: found[1] + "\n" * (found[0].count("\n") - found[1].count("\n")), without)
    paragraph: list[str] = []
    for number, line in enumerate([*without.split("\n"), ""], 1):
        words = line.strip()
        is_cell, is_item = words.startswith("|"), bool(re.match(r"[-*] |\d+\. ", words))
        if not words or words.startswith(("#", "<")) or is_cell or is_item:
            if paragraph:
                yield Text(number - len(paragraph), "page", "\n".join(paragraph))
            paragraph = []
        if is_cell:
            cells = words.replace("\\|", "/").strip("|").split("|")
            yield from (Text(number, "page", cell) for cell in cells if len(cell.split()) >= MESSAGE_WORDS_MIN)
        elif words and not words.startswith(("#", "<")) and (paragraph or not line.startswith("    ")):
            paragraph.append(words)


def _strings(node: ast.AST) -> Iterator[Text]:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            first, _, rest = text.partition("\n")
            yield Text(node.lineno, "docstring", f"{first}\n{textwrap.dedent(rest)}")
            return
        case ast.Constant(value=str(text)) if len(text.split()) >= MESSAGE_WORDS_MIN:
            yield Text(node.lineno, "message", text)
        case ast.JoinedStr(values=parts):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
            if len(text.split()) >= MESSAGE_WORDS_MIN:
                yield Text(node.lineno, "message", text)
            for part in parts:
                if isinstance(part, ast.FormattedValue):
                    yield from _strings(part.value)
            return
    for child in ast.iter_child_nodes(node):
        yield from _strings(child)


def _comments(source: str) -> Iterator[Text]:
    """Comments on lines of their own, one below the other, are one text."""
    found: list[Text] = []
    below = (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = DIRECTIVE.sub("", token.string).lstrip("#").removeprefix(" ")
            row, column = token.start
            if token.start == below:
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{text}")
            else:
                found.append(Text(row, "comment", text))
            below = (row + 1, column) if not token.line[:column].strip() else (0, 0)
    yield from found


def sentences(text: Text) -> Iterator[Sentence]:
    """Blank lines, items of lists and lines of messages end a sentence, too. Examples of code are left out."""
    paragraph: list[str] = []
    start, in_example = text.line, False
    for number, line in enumerate([*text.text.split("\n"), ""], text.line):
        words = line.strip()
        in_example = bool(words) and (in_example or words.startswith(">>>"))
        is_code = in_example or line.startswith("    ")
        if not words or is_code or text.kind == "message" or words.startswith(("- ", "* ")):
            yield from _split("\n".join(paragraph), start)
            paragraph = []
        if words and not is_code:
            start = start if paragraph else number
            paragraph.append(words)


def _split(paragraph: str, line: int) -> Iterator[Sentence]:
    bare = CODE.sub(lambda code: "¤" * len(code[0]), paragraph)
    begin = 0
    for end in [*(match.end() for match in SENTENCE_ENDS.finditer(bare)), len(bare)]:
        text = " ".join(paragraph[begin:end].split())
        if text.strip("-* "):
            yield Sentence(line + paragraph.count("\n", 0, begin), text, " ".join(bare[begin:end].split()))
        begin = end


def faults(reports: dict[str, Report], excused: set[str]) -> list[str]:
    """The sentences to mend, and the files that are excused without need."""
    sentences = [
        f"{path}:{offence.line}: {offence.text} [{ADVICE[offence.rule]}]"
        for path, one in reports.items()
        if path not in excused
        for offence in one.offences
    ]
    done = [path for path in sorted(excused) if path not in reports or not reports[path].offences]
    return sentences + [f"{path}: passes, or is gone; run `python -m scripts.prose --shrink`" for path in done]


def rates(name: str, one: Report) -> str:
    figures = "".join(f"{one.rate(rule):>8.1f}" for rule in ("vague", "clause", "is no"))
    return f"{name:50}{one.words.total():>8,}{figures}{one.count('long'):>6}"


def main(*arguments: str) -> int:
    paths = [Path(argument).resolve() for argument in arguments if argument != "--shrink"]
    read = paths or [SOURCE, *PAGES]
    reports = {
        str(path.relative_to(ROOT)): report(path.read_text(encoding="utf-8"), is_page=path.suffix == ".md")
        for path in [*modules(read), *modules(read, ".md")]
    }
    excused = set() if paths else set(UNFINISHED.read_text(encoding="utf-8").split())
    if "--shrink" in arguments:
        excused = {path for path in excused if path in reports and reports[path].offences}
        UNFINISHED.write_text("".join(f"{path}\n" for path in sorted(excused)), encoding="utf-8")
    wrong = faults(reports, excused)
    for line in wrong:
        print(line)
    print(f"{'prose per 1,000 words':50}{'words':>8}{'vague':>8}{'clause':>8}{'is no':>8}{'long':>6}")
    for path, one in reports.items() if paths else ():
        print(rates(path, one))
    print(rates(f"all {len(reports)} files ({len(excused)} unfinished)", together(reports.values())))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
