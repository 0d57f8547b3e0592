"""What the verbs of `store/verbs/` declare."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perdure.store.interface import Declaration
from perdure.store.verbs import transitions


def declarations() -> Iterator[tuple[str, Declaration[Any]]]:
    """Each verb's name and declaration."""
    for path in Path(transitions.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"perdure.store.verbs.{path.stem}")
        for name, value in vars(module).items():
            declaration = getattr(value, "declaration", None)
            if isinstance(declaration, Declaration) and declaration.function.__module__ == module.__name__:
                yield name, declaration
