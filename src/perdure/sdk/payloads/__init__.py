"""User values to JSON and back by type hints; data never names code.

The reader's type hint decides the type: bytes are base64, tuples and sets are arrays, a dataclass is an object. With
`Any`, or for an unknown reader, values come back as plain JSON. Without an annotation (`Unannotated`), a value whose
type would change is refused. Keys other than strings are refused unless the hint says so: `{1: "a"}` would come back as
`{"1": "a"}`.

- `writing` and `native` use msgspec, `models` pydantic, `conversion` neither; `reading` picks one by the hint
- `inspection` finds the `faults` of an unrecordable value, `changes` a value whose type would change
"""
