"""The terms by which executions are found.

A term is text with a sort in front: `k:` a part of a key, `e:` a word of an error, `f:` a field and its value.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from perdure.wire.base.errors import BadValue

KEY_WORDS_MAX: Final = 3
"""Words after the first, which the key's own index finds."""
KEY_PART_CHARS: Final = 64
ERROR_CHARS: Final = 300
ERROR_WORDS_MAX: Final = 16
WORD_CHARS: Final = 40
PART_CHARS_MIN: Final = 2
FIELD_VALUES_MAX: Final = 20
VALUE_BYTES_MAX: Final = 200
_LAST: Final = "\U0010ffff"
_WORD: Final = re.compile(r"[^\W_]+")
_BEFORE_WORD: Final = re.compile(r"[\W_]+(?=[^\W_])")


FIELDS_MAX: Final = 16
"""Most searchable fields of a workflow."""
_FIELD: Final = re.compile(r"(payload|result)(\.[^.=,\"\\\x00-\x1f]{1,64}){1,8}")
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_STRING: Final = msgspec.json.Decoder(str)


class Terms(NamedTuple):
    """A range of terms, both ends included."""

    first: str
    last: str


def beginning_with(text: str) -> Terms:
    return Terms(text, text + _LAST)


def key_terms(key: str) -> list[str]:
    """The key from the beginning of each further word to the end.

    >>> key_terms("order-4711-eu")
    ['k:4711-eu', 'k:eu']
    """
    starts = [match.end() for match in _BEFORE_WORD.finditer(key)][:KEY_WORDS_MAX]
    return list(dict.fromkeys(f"k:{key[start : start + KEY_PART_CHARS]}" for start in starts))


def error_words(text: str) -> list[str]:
    words = [match[0][:WORD_CHARS].lower() for match in _WORD.finditer(text[:ERROR_CHARS])]
    return list(dict.fromkeys(words))[:ERROR_WORDS_MAX]


def error_terms(error: str) -> list[str]:
    """
    >>> error_terms("TimeoutError: connect to db-1")
    ['e:timeouterror', 'e:connect', 'e:to', 'e:db', 'e:1']
    """
    return [f"e:{word}" for word in error_words(error)]


def check_fields(fields: Sequence[str], where: str) -> None:
    """Raises BadValue."""
    if len(fields) > FIELDS_MAX:
        raise BadValue(f"{where}: {len(fields)} searchable fields; the limit is {FIELDS_MAX}.", {"path": where})
    for field in fields:
        if _FIELD.fullmatch(field) is None:
            raise BadValue(
                f'{where}: {field!r} is not a searchable field; name it like "payload.customer.id" or "result.status".',
                {"path": where},
            )


def field_term(field: str, value: str) -> str:
    return f"f:{field}={value}"


def field_terms(fields: Sequence[str], *, payload: bytes | None = None, result: bytes | None = None) -> list[str]:
    """The terms of the fields found in the documents.

    >>> field_terms(["payload.lines.sku", "payload.id", "result.ok"], payload=b'{"id": 7, "lines": [{"sku": "a"}]}')
    ['f:payload.lines.sku=a', 'f:payload.id=7']
    """
    documents = {"payload": payload, "result": result}
    found: list[str] = []
    for field in fields:
        root, *path = field.split(".")
        document = documents[root]
        if document is not None:
            values = dict.fromkeys(_values(Raw(document), path))
            found += [field_term(field, value) for value in list(values)[:FIELD_VALUES_MAX]]
    return found


def _values(document: Raw, path: Sequence[str]) -> Iterator[str]:
    """Texts without quotes; numbers, true, false and null as written. Arrays stand for their items."""
    text = bytes(document).strip()
    try:
        if text.startswith(b"["):
            for item in _ARRAY.decode(text):
                yield from _values(item, path)
        elif path:
            if text.startswith(b"{") and path[0] in (members := _OBJECT.decode(text)):
                yield from _values(members[path[0]], path[1:])
        elif not text.startswith(b"{"):
            value = _STRING.decode(text) if text.startswith(b'"') else text.decode()
            # PostgreSQL has no texts with a zero.
            if len(value.encode()) <= VALUE_BYTES_MAX and "\x00" not in value:
                yield value
    except (msgspec.DecodeError, UnicodeError):
        return
