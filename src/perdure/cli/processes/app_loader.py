"""Loads the workflows of an application."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from perdure.cli.base.commands import Refused

if TYPE_CHECKING:
    from perdure.sdk.workflows.workflow import Registry


def folder_of(target: str) -> Path:
    name = target.partition(":")[0]
    return Path(name).resolve().parent if name.endswith(".py") else Path.cwd()


def load(target: str) -> "Registry":
    """Raises `Refused` with file and line of an error in the application."""
    registry = find(target)
    for one in registry:
        try:
            one.check_hints()
        except TypeError as error:
            raise Refused(str(error)) from None
    return registry


def find(target: str) -> "Registry":
    """`load` without the check of types."""
    try:
        registry = _find(target)
    except ValueError as error:  # two workflows or queues have the same name
        raise Refused(f"{target}: {error}") from None
    if not registry.workflows:
        raise Refused(f"{target!r} has no workflows; make one with @workflow, or name the Registry that has them.")
    return registry


def _find(target: str) -> "Registry":
    from perdure.sdk.workflows.workflow import Registry, Workflow

    name, _, attribute = target.partition(":")
    module = _import(name)
    found: Any = module
    for part in filter(None, attribute.split(".")):
        if not hasattr(found, part):
            raise Refused(f"{name!r} has nothing called {attribute!r}; name a Registry, a workflow or a module in it.")
        found = getattr(found, part)
    if isinstance(found, Registry):
        return found
    if isinstance(found, Workflow):
        return Registry(found)
    if isinstance(found, ModuleType):
        return Registry.of(found)
    raise Refused(f"{target!r} is a {type(found).__name__}; name a Registry, a workflow or a module.")


def _import(name: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(name)
        path = Path(name).resolve()
        if not path.is_file():
            raise Refused(f"File {name!r} does not exist; `perdure new DIR` writes one to start with.")
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    except Refused:
        raise
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0] or error.name == name:
            raise Refused(
                f"Module {name!r} was not found; give a file (app.py) or a module that can be imported."
            ) from None
        what = 'pip install "perdure[agents]"' if error.name == "pydantic_ai" else "install it, or fix the import"
        raise Refused(f"{_where(error)}{error}; {what}.") from None
    except SyntaxError as error:
        raise Refused(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise Refused(f"{_where(error)}{type(error).__name__}: {error}") from None


def _where(error: BaseException) -> str:
    ours = str(Path(__file__).parents[2])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen")) and "importlib" not in frame.filename
    ]
    users = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{users[-1].filename}:{users[-1].lineno}: " if users else ""


def sample(hint: Any, depth: int = 0) -> Any:
    """An example of a type. None if the type is unknown."""
    import dataclasses
    import enum
    import types
    import typing

    import msgspec

    from perdure.sdk.payloads.hints import Unannotated

    if isinstance(hint, Unannotated):
        return {}
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return sample(typing.get_args(hint)[0], depth)
    if origin in (typing.Union, types.UnionType):
        return sample(typing.get_args(hint)[0], depth)
    if origin is typing.Literal:
        return typing.get_args(hint)[0]
    base = origin or hint
    if not isinstance(base, type) or depth > 5:
        return None
    if issubclass(base, enum.Enum):
        return next(iter(base)).value
    for known, value in ((bool, True), (int, 7), (float, 1.5), (str, "text"), (dict, {}), (list, []), (tuple, [])):
        if issubclass(base, known):
            return value
    fields: list[tuple[str, Any]] = []
    if dataclasses.is_dataclass(base):
        hints = typing.get_type_hints(base)
        fields = [
            (field.name, hints[field.name])
            for field in dataclasses.fields(base)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
    elif issubclass(base, msgspec.Struct):
        fields = [(field.encode_name, field.type) for field in msgspec.structs.fields(base) if field.required]
    elif hasattr(base, "model_fields"):
        fields = [(name, field.annotation) for name, field in base.model_fields.items() if field.is_required()]
    elif typing.is_typeddict(base):
        fields = list(typing.get_type_hints(base).items())
    return {name: sample(inner, depth + 1) for name, inner in fields}
