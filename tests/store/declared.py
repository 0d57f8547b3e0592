"""The declarations of the verbs of `store/verbs/`."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from perdure.store import verbs
from perdure.store.base.interface import Declaration


def declarations() -> Iterator[tuple[str, Declaration[Any]]]:
    """Each verb's name and declaration."""
    for found in pkgutil.walk_packages(verbs.__path__, "perdure.store.verbs."):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            declaration = getattr(value, "declaration", None)
            if isinstance(declaration, Declaration) and declaration.function.__module__ == module.__name__:
                yield name, declaration
