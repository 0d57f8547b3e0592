"""Counts how often a check looks at a value. References and unions of a schema can double the number at each level."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

LOOKS_MAX: Final = 10_000
"""Most looks at values on the way from the whole value to one part."""
STEPS_MAX: Final = 20_000
"""Most parts of schemas visited by a count."""
_UNCOUNTED: Final = frozenset(
    ("$id", "$anchor", "$dynamicRef", "$recursiveRef", "dependencies", "unevaluatedItems", "unevaluatedProperties")
)


def looks_at(schema: Any, depth: int) -> float:
    """The looks at a value of `depth` levels. Infinite beyond LOOKS_MAX, or if the schema cannot be counted."""
    known: dict[tuple[int, int], tuple[int, int, int]] = {}

    def total(part: Any, depth: int) -> int:
        here, members, items = count(part, depth)
        return here + max(members, items)

    def count(part: Any, depth: int) -> tuple[int, int, int]:
        """Looks at the value itself, at a member and at an item."""
        if not isinstance(part, dict):
            return 1, 0, 0
        key = id(part), depth
        if key in known:
            return known[key]
        if len(known) >= STEPS_MAX or not _UNCOUNTED.isdisjoint(part):
            raise ValueError
        known[key] = LOOKS_MAX, 0, 0  # too many, if it refers to itself at the same value
        same = [count(one, depth) for one in _same_value(part, schema)]
        here, members, items = map(sum, zip((1, 0, 0), *same, strict=True))
        if depth > 0:
            inner = partial(total, depth=depth - 1)
            others = part.get("additionalProperties"), part.get("propertyNames")
            members += max(map(inner, _values(part.get("properties"))), default=0)
            members += sum(map(inner, (*_values(part.get("patternProperties")), *others)))
            items += max(map(inner, _values(part.get("prefixItems"))), default=0)
            items += inner(part.get("items")) + inner(part.get("contains"))
        if here + max(members, items) > LOOKS_MAX:
            raise ValueError
        known[key] = here, members, items
        return known[key]

    try:
        return total(schema, depth)
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf


def _same_value(part: dict[str, Any], schema: Any) -> Iterator[Any]:
    for name in ("allOf", "anyOf", "oneOf", "dependentSchemas"):
        yield from _values(part.get(name))
    yield from (part[name] for name in ("not", "if", "then", "else") if name in part)
    if "$ref" in part:
        yield _referred(part["$ref"], schema)


def _referred(reference: Any, found: Any) -> Any:
    """Raises ValueError, LookupError, TypeError."""
    if reference[:1] != "#":
        raise ValueError
    for name in unquote(reference[1:]).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        found = found[int(name) if isinstance(found, list) else name]
    return found


def _values(parts: Any) -> list[Any]:
    return list(parts.values()) if isinstance(parts, dict) else parts if isinstance(parts, list) else []


def extent(value: Any) -> tuple[int, int]:
    """The levels of lists and objects in a value, and the number of values inside."""
    level, depth, count = [value], -1, 0
    while level:
        depth, count = depth + 1, count + len(level)
        level = [part for one in level for part in _values(one)]
    return depth, count
