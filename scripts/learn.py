"""The pages of Learn and the program that grows over them: `shop.py` as a reader has it after each page."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "learn"
PAGES: Final = ("step", "crash", "wait", "approval", "children", "schedule", "agent", "production")
FENCE: Final = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    file: str
    """The file that a reader saves the block in, or nothing."""
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8"))]


def files(page: str) -> dict[str, str]:
    """The files of a reader who has followed all pages up to this one."""
    found: dict[str, str] = {}
    for earlier in PAGES[: PAGES.index(page) + 1]:
        for block in blocks(earlier):
            if block.file:
                found[block.file] = merge(found.get(block.file, ""), block.text)
    return found


def merge(program: str, change: str) -> str:
    """Add the definitions of a change to a program. A definition takes the place of the one of its name."""
    imports: dict[str, set[str]] = {}
    parts: dict[str, str] = {}
    for source in (program, change):
        for node in ast.parse(source).body:
            match node:
                case ast.Import(names=names):
                    imports.update({name.name: set() for name in names})
                case ast.ImportFrom(module=str(module), names=names):
                    imports.setdefault(module, set()).update(name.name for name in names)
                case _:
                    parts[_name(node)] = _text(source, node)
    return "\n\n\n".join([_imports(imports), *parts.values()]) + "\n"


def _imports(imports: dict[str, set[str]]) -> str:
    groups: dict[int, list[str]] = {}
    for module, names in sorted(imports.items(), key=lambda one: (bool(one[1]), one[0])):
        root = module.partition(".")[0]
        rank = 0 if root in sys.stdlib_module_names else 2 if root == "perdure" else 1
        line = f"from {module} import {', '.join(sorted(names, key=_case))}" if names else f"import {module}"
        groups.setdefault(rank, []).append(line)
    return "\n\n".join("\n".join(groups[rank]) for rank in sorted(groups))


def _case(name: str) -> tuple[bool, str]:
    """Classes stand before functions."""
    return name[0].islower(), name


def _name(node: ast.stmt) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    raise ValueError(f"a page of Learn has a statement that is neither an import nor a definition: {ast.unparse(node)}")


def _text(source: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
