"""Finds waits and events by the top-level fields of an event (docs/decisions/0002).

A hash stands for a field with its value. Equal JSON values have equal hashes. Hashes only select candidates;
`Fields.match` decides.

An entry is a hash and the distance of its event to the row's last event. A publish adds one row of entries. Once a
block of events is complete, its rows become one row per part: the entries whose hashes begin with the same bits. So a
publish writes next to the publish before, and a search reads two parts of each block.
"""

import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from sys import byteorder
from typing import Any, Final

import msgspec

BLOCK: Final = 1_024
"""Events. Below 2 to the 16, because an entry keeps a distance in two bytes."""
PARTS: Final = 16
"""Parts of a complete block. The SQL has the numbers, too."""
NEW: Final = 16
"""The part of events after the last complete block."""
ANY: Final = 17
"""The part of hashes for several values, which begin with a zero byte."""
FIELDS_MAX: Final = 64
"""A search always compares events with more fields."""
VALUE_BYTES_MAX: Final = 256
"""An event with a longer object or list under a name is a candidate of each search for an object or list there."""
NAMES_BYTES_MAX: Final = 512
"""Waits for longer names are compared with each event. PostgreSQL limits the columns of an index."""
UNKNOWN: Final = bytes(6)
COUNTED_BYTES_MIN: Final = 4 << 10
"""Larger events with more than `FIELDS_MAX` fields are not decoded whole: 700,000 fields take half a second."""
READ_MAX: Final = 32
"""Fields read in one pass over a large event; a pass takes a millisecond at most."""
PASSES_MAX: Final = 4
"""Passes before a large event is decoded whole."""

_ENTRY: Final = 8
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAMES = msgspec.json.Decoder(list[str])
_CONTAINERS: Final = (b"{", b"[")

Wanted = Mapping[str, object] | None


def wanted_by(match: bytes | None) -> Wanted:
    """Return top-level fields; None: any event matches."""
    return None if match is None else json.loads(match)


class Fields:
    """An event's top-level fields. Each is decoded at most once, and a large event only in part."""

    __slots__ = ("_data", "_hashes", "_passes", "_raw", "_read")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._raw: dict[str, msgspec.Raw] | None = None
        self._read: dict[str, object] = {}
        self._hashes: dict[str, bytes] = {}
        self._passes: int | None = None
        """Passes left; None: whether the event has many fields is unknown."""

    @property
    def raw(self) -> dict[str, msgspec.Raw] | None:
        """The event's fields, or None if the event is not an object."""
        if self._raw is None and self._data.lstrip().startswith(b"{"):
            self._raw = _FIELDS.decode(self._data)
        return self._raw

    def _have(self, names: Collection[str]) -> Mapping[str, msgspec.Raw] | None:
        """Return fields including `names`, or None if a name is missing."""
        found: Mapping[str, msgspec.Raw] | None
        if self._raw is None and self._has_many() and self._passes and (read := _reader(tuple(names))) is not None:
            self._passes -= 1
            found = read(self._data)
        else:
            found = self.raw
        return None if found is None or any(name not in found for name in names) else found

    def _has_many(self) -> bool:
        if self._passes is None:
            counted = len(self._data) >= COUNTED_BYTES_MIN and self._data.lstrip().startswith(b"{")
            self._passes = PASSES_MAX if counted and _Name.are_many(self._data) else 0
        return self._passes > 0

    def match(self, wanted: Wanted) -> bool:
        if wanted is None:
            return True
        found = self._have(wanted)
        return found is not None and all(_same(self._value(name, found[name]), wanted[name]) for name in wanted)

    def _value(self, name: str, text: msgspec.Raw) -> object:
        if name not in self._read:
            self._read[name] = json.loads(bytes(text))
        return self._read[name]

    def _hash(self, name: str, raw: msgspec.Raw) -> bytes:
        found = self._hashes.get(name)
        if found is None:
            text = bytes(raw)
            found = self._hashes[name] = _hash(name, text if _is_plain(text) else _plain(self._value(name, raw)))
        return found

    def match_hash(self, names: Sequence[str]) -> int | None:
        """Hash the values under these names together; None: a field is missing."""
        fields = self._have(names)
        if fields is None:
            return None
        together = b"".join([self._hash(name, fields[name]) for name in names])
        return int.from_bytes(blake2b(together, digest_size=8).digest(), "big", signed=True)

    def hashes(self) -> Iterable[bytes]:
        """Return hashes for the index of events."""
        if self._has_many():
            return (UNKNOWN,)
        raw = self.raw
        if raw is None:
            return ()
        if len(raw) > FIELDS_MAX:
            return (UNKNOWN,)
        found: list[bytes] = []
        for name, value in raw.items():
            text = bytes(value)
            if len(text) > VALUE_BYTES_MAX and _holds_more(text):
                found.append(long_hash(name))
            else:
                found.append(_hash(name, text) if _is_plain(text) else self._hash(name, value))
        return found

    def searches(self) -> list[tuple[bytes, bytes]]:
        """Return for each field of a match its hash, and the hash of a long value that may be equal."""
        return [
            (self._hash(name, text), long_hash(name) if _holds_more(bytes(text)) else UNKNOWN)
            for name, text in (self.raw or {}).items()
        ]


class _Name(Enum):
    """A field name that counts how many names were decoded."""

    ANY = "\0"

    @classmethod
    def _missing_(cls, value: object) -> "_Name":
        global _names_left
        _names_left -= 1
        if _names_left < 0:
            raise ValueError
        return cls.ANY

    @classmethod
    def are_many(cls, data: bytes) -> bool:
        """Whether names exceed `FIELDS_MAX`; decoding stops at the first name too many."""
        global _names_left
        _names_left = FIELDS_MAX
        try:
            _NAMED.decode(data)
        except msgspec.ValidationError:
            return True
        return False


_names_left = 0
_NAMED: Final = msgspec.json.Decoder(dict[_Name, msgspec.Raw])


@lru_cache
def _reader(names: tuple[str, ...]) -> Callable[[bytes], Mapping[str, msgspec.Raw]] | None:
    """Make a decoder that skips all other fields. None: too many names, or a name that msgspec refuses."""
    if len(names) > READ_MAX:
        return None
    try:
        fields = [(f"n{n}", msgspec.Raw, msgspec.field(default=_MISSING, name=name)) for n, name in enumerate(names)]
        decode = msgspec.json.Decoder(msgspec.defstruct("Some", fields)).decode
    except ValueError:
        return None

    def read(data: bytes) -> Mapping[str, msgspec.Raw]:
        found = zip(names, msgspec.structs.astuple(decode(data)), strict=True)
        return {name: value for name, value in found if value is not _MISSING}

    return read


_MISSING: Final = msgspec.Raw()


def _same(left: object, right: object) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _is_plain(text: bytes) -> bool:
    """Whether `_plain` would not change the text."""
    first = text[:1]
    if first == b'"':
        return b"\\" not in text
    return first in (b"t", b"f", b"n") or text.isdigit() or (first == b"-" and text[1:].isdigit() and text != b"-0")


def _plain(value: object) -> bytes:
    """Write the value as text. Values that `_same` finds equal have the same text."""
    return json.dumps(_whole(value), ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _whole(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return list(map(_whole, value)) if isinstance(value, list) else value


def _hash(name: str, plain: bytes) -> bytes:
    found = blake2b(b"%b\0%b" % (name.encode(), plain), digest_size=6).digest()
    return found if found[0] else b"\1" + found[1:]


def long_hash(name: str) -> bytes:
    return b"\0" + blake2b(name.encode(), digest_size=5).digest()


def _holds_more(text: bytes) -> bool:
    return text[:1] in _CONTAINERS


def names_of(match: bytes) -> str | None:
    """Return a match's names in order, as JSON."""
    names = msgspec.json.encode(sorted(_FIELDS.decode(match)))
    return names.decode() if len(names) <= NAMES_BYTES_MAX else None


def read_names(names: str) -> list[str]:
    return _NAMES.decode(names)


def hash_of(match: bytes | None) -> dict[str, Any]:
    """Return the columns of a wait by which publishing finds the wait."""
    names = None if match is None else names_of(match)
    if match is None or names is None:
        return {"match_names": None, "match_hash": None}
    return {"match_names": names, "match_hash": Fields(match).match_hash(read_names(names))}


class FieldsRow(msgspec.Struct, frozen=True, gc=False):
    """Entries of some events. `seq` is the number of the last event."""

    seq: int
    entries: bytes
    part: int = NEW


def new_rows(first: int, events: Sequence[Fields]) -> list[FieldsRow]:
    """Make the entries of events that are numbered from `first` on. No row crosses a block."""
    rows: list[FieldsRow] = []
    beyond = first + len(events)
    while first < beyond:
        last = min((first + BLOCK - 1) // BLOCK * BLOCK, beyond - 1)
        part = events[len(events) - beyond + first : len(events) - beyond + last + 1]
        entries = b"".join(
            [hash + away.to_bytes(2, "big") for away, event in enumerate(reversed(part)) for hash in event.hashes()]
        )
        if entries:
            rows.append(FieldsRow(last, entries))
        first = last + 1
    return rows


def block_rows(last: int, rows: Iterable[FieldsRow]) -> list[FieldsRow]:
    """Make all rows of a block by part, up to its event `last`."""
    together: list[int] = []
    for row in rows:
        away = last - row.seq
        together += [entry + away for entry in _numbers(row.entries)]
    together.sort()
    begins = {ANY: 0} | {part: max(part << 60, 1 << 56) for part in range(PARTS)}
    edges = [bisect_left(together, begin) for begin in begins.values()] + [len(together)]
    return [
        FieldsRow(last, _bytes(together[begin:end]), part)
        for part, begin, end in zip(begins, edges[:-1], edges[1:], strict=True)
        if begin < end
    ]


def _numbers(entries: bytes) -> "array[int]":
    found = array("Q", entries)
    if byteorder == "little":
        found.byteswap()
    return found


def _bytes(numbers: list[int]) -> bytes:
    found = array("Q", numbers)
    if byteorder == "little":
        found.byteswap()
    return found.tobytes()


def part_of(hash: bytes) -> int:
    return hash[0] >> 4


def events_in(row: FieldsRow, hashes: Iterable[bytes]) -> Iterable[int]:
    """Return the numbers of events with one of these hashes."""
    for wanted in hashes:
        place = row.entries.find(wanted)
        while place >= 0:
            if place % _ENTRY == 0:
                yield row.seq - int.from_bytes(row.entries[place + 6 : place + 8], "big")
            place = row.entries.find(wanted, place + 1)
