"""User values to JSON and back by type hints; data never names code.

JSON has no tags. The reader's type hint decides the type: bytes are base64, tuples and sets are arrays, a dataclass is
an object. With `Any`, or for an unknown reader, values come back as plain JSON: lists, dicts and strings. Without an
annotation (`Unannotated`), a value that would change its type is refused. Dictionaries keep int, enum, UUID or date
keys only if the hint says so, and are refused elsewhere: `{1: "a"}` would come back as `{"1": "a"}`.

- `values` has the entry points `encode` and `decode`
- msgspec writes and reads (`writing`, `native`), pydantic its own models (`models`); `conversion` reads hints that
  msgspec declines; `reading` picks the reader
- `inspection` finds the `faults` of a value that cannot be recorded, and `changes` a value that would change its type
- `hints` of functions, `errors` as JSON, `fingerprints`
"""
