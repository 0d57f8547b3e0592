"""How often a check looks at one value. The references and unions of a schema can double that at each level."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

LOOKS_MAX: Final = 10_000
"""On the way from the whole value to one part of it."""
STEPS_MAX: Final = 20_000
"""Parts of schemas that one count visits."""
_UNCOUNTED: Final = frozenset(
    ("$id", "$anchor", "$dynamicRef", "$recursiveRef", "dependencies", "unevaluatedItems", "unevaluatedProperties")
)


class _TooMany(Exception):
    pass


class Looks:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._known: dict[tuple[int, int], tuple[int, int, int] | None] = {}
        self._steps = 0

    def at(self, depth: int) -> int | None:
        """For values with that many levels. None: too many, or the schema cannot be counted."""
        self._steps = 0
        try:
            looks = self._all(self._schema, depth)
        except (_TooMany, RecursionError):
            self._known.clear()
            return None
        return looks if looks <= LOOKS_MAX else None

    def _all(self, schema: Any, depth: int) -> int:
        here, members, items = self._parts(schema, depth)
        return here + max(members, items)

    def _parts(self, schema: Any, depth: int) -> tuple[int, int, int]:
        """Looks at the value itself, at a member of it, and at an item of it."""
        if not isinstance(schema, dict):
            return 1, 0, 0
        key = id(schema), depth
        if key in self._known:
            known = self._known[key]
            if known is None:  # it refers to itself at the same value
                raise _TooMany
            return known
        self._steps += 1
        if self._steps > STEPS_MAX or not _UNCOUNTED.isdisjoint(schema):
            raise _TooMany
        self._known[key] = None
        here, members, items = 1, 0, 0
        for part in self._same_value(schema):
            more = self._parts(part, depth)
            here, members, items = here + more[0], members + more[1], items + more[2]
        if depth > 0:
            members += self._most(schema.get("properties"), depth) + sum(
                self._all(part, depth - 1)
                for part in (
                    *_values(schema.get("patternProperties")),
                    schema.get("additionalProperties"),
                    schema.get("propertyNames"),
                )
            )
            items += self._most(schema.get("prefixItems"), depth) + sum(
                self._all(schema.get(name), depth - 1) for name in ("items", "contains")
            )
        if here + max(members, items) > LOOKS_MAX:
            raise _TooMany
        found = self._known[key] = here, members, items
        return found

    def _most(self, parts: Any, depth: int) -> int:
        return max((self._all(part, depth - 1) for part in _values(parts)), default=0)

    def _same_value(self, schema: dict[str, Any]) -> Iterator[Any]:
        for name in ("allOf", "anyOf", "oneOf", "dependentSchemas"):
            yield from _values(schema.get(name))
        yield from (schema[name] for name in ("not", "if", "then", "else") if name in schema)
        if "$ref" in schema:
            yield self._referred(schema["$ref"])

    def _referred(self, reference: Any) -> Any:
        found = self._schema
        if not isinstance(reference, str) or reference[:1] != "#":
            raise _TooMany
        for name in unquote(reference[1:]).split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name) if isinstance(found, list) else name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise _TooMany from None
        return found


def _values(parts: Any) -> list[Any]:
    return list(parts.values()) if isinstance(parts, dict) else parts if isinstance(parts, list) else []


def extent(value: Any) -> tuple[int, int]:
    """How many levels of lists and objects a value has, and how many values they hold."""
    level, depth, count = [value], -1, 0
    while level:
        depth, count = depth + 1, count + len(level)
        level = [part for one in level for part in _values(one)]
    return depth, count
