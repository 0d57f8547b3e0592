"""User values ↔ JSON by type hints; data never names code.

A value is written without tags: what it becomes on the way back is decided by the type hint of whoever reads it, so
bytes are base64, tuples and sets are arrays, a dataclass is an object. With `Any`, or for a reader that is not known
yet, values come back as plain JSON: a tuple or a set as a list, a dataclass or a pydantic model as a dict, a datetime,
UUID, Decimal or bytes as a string, an enum as its value. Where a function has no annotation (`Unannotated`), such a
value is refused. Dictionaries keep their int, enum, UUID or date keys where the hint says so, and are
refused elsewhere, because `{1: "a"}` would silently come back as `{"1": "a"}`.

`values` has the two doors, `encode` and `decode`. Behind them, msgspec does the work (`writing`, `native`), pydantic
its own models (`models`), and hints that msgspec declines are read by `conversion`; `reading` knows the right reader
for each hint. When a value cannot be recorded, `inspection` walks it to find where its `faults` lie; `changes` finds
what would come back as another type. Beside them:
`hints` of functions, `errors` as JSON, `fingerprints`.
"""
