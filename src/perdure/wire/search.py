"""The terms by which executions are found.

A term is text with a sort in front: `k:` a part of a key, `e:` a word of an error, `f:` a field and its value.
"""

import re
from typing import Final, NamedTuple

KEY_WORDS_MAX: Final = 3
"""Beside the first word, by whose beginning the key's own index finds it."""
KEY_PART_CHARS: Final = 64
ERROR_CHARS: Final = 300
ERROR_WORDS_MAX: Final = 16
WORD_CHARS: Final = 40
PART_CHARS_MIN: Final = 2
FIELD_VALUES_MAX: Final = 20
VALUE_BYTES_MAX: Final = 200
_LAST: Final = "\U0010ffff"
_WORD: Final = re.compile(r"[^\W_]+")


class Terms(NamedTuple):
    """A range of terms, both ends included."""

    first: str
    last: str


def beginning_with(text: str) -> Terms:
    return Terms(text, text + _LAST)


def key_terms(key: str) -> list[str]:
    """The rest of the key from the beginning of each further word.

    >>> key_terms("order-4711-eu")
    ['k:4711-eu', 'k:eu']
    """
    starts = [match.start() for match in _WORD.finditer(key)]
    if starts and starts[0] == 0:
        del starts[0]
    return sorted({f"k:{key[start : start + KEY_PART_CHARS]}" for start in starts[:KEY_WORDS_MAX]})


def error_words(text: str) -> list[str]:
    words = [match[0][:WORD_CHARS].lower() for match in _WORD.finditer(text[:ERROR_CHARS])]
    return list(dict.fromkeys(words))[:ERROR_WORDS_MAX]


def error_terms(error: str) -> list[str]:
    """
    >>> error_terms("TimeoutError: connect to db-1")
    ['e:timeouterror', 'e:connect', 'e:to', 'e:db', 'e:1']
    """
    return [f"e:{word}" for word in error_words(error)]
