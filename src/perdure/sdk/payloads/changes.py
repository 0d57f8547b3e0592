from typing import Any, Final

from perdure.sdk.payloads.faults import below
from perdure.sdk.payloads.hints import Unannotated
from perdure.wire.base.errors import BadValue

JSON_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_KEYS: Final = frozenset({str})


def refuse_changes(value: object, twin: object, hint: Unannotated, where: str) -> None:
    """Raise `BadValue` with the path of the first part whose type differs in `twin`, the value read back. The caller
    has checked scalars."""
    found = _first_change(value, twin)
    if found is not None:
        path, was, becomes = found
        raise BadValue(
            f"{where}{path}: a `{was.__name__}` would come back as a `{becomes.__name__}`; {hint.advice()}, "
            "or use plain JSON values"
        )


def _first_change(value: Any, twin: Any) -> tuple[str, type, type] | None:
    # Compare exact types: a StrEnum equals its text, a defaultdict a dict.
    kind = type(value)
    if kind is list:
        parts = enumerate(value)
    elif kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return "", next(type(key) for key in value if type(key) is not str), str
        parts = value.items()
    else:
        return "", kind, type(twin)
    for name, part in parts:
        if type(part) not in JSON_SCALARS:
            found = _first_change(part, twin[name])
            if found is not None:
                path, was, becomes = found
                return below("", name) + path, was, becomes
    return None
