"""Descriptions of workflows for people, sent with a registration: types, place and docstring of the function."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Raw

from perdure.sdk.payloads.hints import Hints
from perdure.sdk.payloads.schemas import input_check, schema_of
from perdure.wire.base.codec import scrub_text
from perdure.wire.runs.workflows import WorkflowDescription

TEXT_BYTES_MAX: Final = 1_000


def describe(fn: Callable[..., Any], hints: Hints) -> WorkflowDescription:
    taken, given = schema_of(hints.input) if hints.takes_input else None, schema_of(hints.result)
    file, line = _source(inspect.unwrap(fn))
    return WorkflowDescription(
        takes_input=hints.takes_input,
        input_optional=hints.has_default,
        input_check=input_check(hints.input) if taken is not None else None,
        input_schema=None if taken is None else Raw(taken),
        output_schema=None if given is None else Raw(given),
        file=file,
        line=line,
        text=_first_paragraph(fn),
    )


def _first_paragraph(fn: Callable[..., Any]) -> str | None:
    text = " ".join((inspect.getdoc(fn) or "").strip().partition("\n\n")[0].split())
    return scrub_text(text, TEXT_BYTES_MAX) or None


def _source(fn: Any) -> tuple[str | None, int | None]:
    """The file below the working directory or a folder of the import path. Other paths stay private."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return None, None
    file = Path(code.co_filename)
    if not file.is_absolute():
        return (code.co_filename, code.co_firstlineno) if file.suffix == ".py" else (None, None)
    for folder in (os.getcwd(), *sys.path):
        if folder and file.is_relative_to(folder):
            shown = scrub_text(file.relative_to(folder).as_posix(), TEXT_BYTES_MAX)
            return shown, code.co_firstlineno
    return scrub_text(file.name, TEXT_BYTES_MAX), code.co_firstlineno
