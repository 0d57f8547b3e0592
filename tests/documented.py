"""The Python blocks of the documentation, run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Page:
    """The blocks of a page, run in order in a single module; `all_ran` says whether all blocks ran."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._blocks = blocks(name)
        self._next = 0
        self.module = types.ModuleType(f"documented_{name.replace('/', '_').replace('-', '_')}")
        sys.modules[self.module.__name__] = self.module  # where type hints are looked up

    async def run(self, **given: object) -> Any:
        """Run the next block, which may `await` and use what is `given`; gives the module."""
        vars(self.module).update(given)
        where = f"docs/{self._name}.md, block {self._next + 1}"
        code = compile(self._blocks[self._next], where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        self._next += 1
        done = eval(code, vars(self.module))
        if code.co_flags & inspect.CO_COROUTINE:
            await done
        return self.module

    @property
    def all_ran(self) -> bool:
        return self._next == len(self._blocks)
