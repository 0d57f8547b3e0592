r"""Rules for JSON bytes, names and texts.

A value is one JSON document in UTF-8, kept byte for byte. The checks refuse documents that some reader could not read:
NaN, numbers that overflow to infinity, lone surrogates, numbers too long for Python, nesting too deep for older
Pythons. `\u0000` is fine because the databases hold bytes. Readers take the last of duplicate keys.

`check_json` runs for every payload: the usual case is one msgspec decode, and the slower checks run only if the bytes
give a sign. A document of many parts above 16 KiB is skimmed: decoding 8 MiB of small containers takes 1.6 s, mostly
garbage collection, and would block the event loop. Long exponents also skim shorter documents: msgspec takes 8 µs for a
number like 1e300, so 16 KiB of such numbers take 20 ms.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

import msgspec
from msgspec import Raw

from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import DEPTH_MAX, VALUE_BYTES_MAX

# msgspec reads 4,300 digits, sign included; the margin is for every worker.
INTEGER_DIGITS_MAX: Final = 4_000
NUMBER_DIGITS_MAX: Final = 15_000
"""Most digits in a row. Numbers are checked whole, and a number of 8 MiB would block the event loop."""
# Names and keys are index columns, and PostgreSQL's B-tree takes about 2,700 bytes per row.
NAME_BYTES_MAX: Final = 256
KEY_BYTES_MAX: Final = 512
TOPIC_BYTES_MAX: Final = 512
ERROR_BYTES_MAX: Final = 16 << 10

_SKIM_BYTES_MIN: Final = 16 << 10
_FEW_BYTES: Final = 64
"""Too short for many numbers."""
_PARTS_MAX: Final = 250
_FEW_QUOTES: Final = 16
_COUNT_BYTES_MAX: Final = 4 << 10
_SLICE_BYTES: Final = 32 << 10
"""Takes two milliseconds at most."""
_CONTAINERS_MAX: Final = 100_000
"""Counting the depth of as many containers takes some milliseconds."""
# The largest float is 1.8e308: with a two-digit exponent, overflow takes 210 digits.
_LARGE_DIGITS: Final = b"0" * 200

_decode = msgspec.json.Decoder().decode
_sorted = msgspec.json.Encoder(order="sorted").encode
_skim = msgspec.json.Decoder(Raw).decode


def check_json(
    data: bytes | memoryview, *, where: str, max_bytes: int = VALUE_BYTES_MAX, max_depth: int = DEPTH_MAX
) -> None:
    """Raise `BadValue` unless `data` is one JSON document readable for every reader."""
    _check_size(data, where, max_bytes)
    if type(data) is not bytes:
        data = bytes(data)
    if _judged and max_depth == DEPTH_MAX and (fault := _judged.get(data)) is not None:
        _raise(where, [fault])
        return
    is_skimmed = len(data) >= _FEW_BYTES and not _is_read_fast(data)
    try:
        if not is_skimmed:
            _decode(data)
        else:
            # msgspec checks the syntax of a skipped value, but neither its UTF-8 nor the range of its numbers.
            _skim(data)
            data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadValue(_complaint(where, data, error, max_depth)) from None
    _raise(where, _faults(data, max_depth, numbers=is_skimmed))


def check_raw(value: Raw, *, where: str, max_bytes: int = VALUE_BYTES_MAX) -> None:
    """Check a part of a larger document, whose syntax and UTF-8 msgspec has checked. Like `check_json` otherwise."""
    data = bytes(value)
    if len(data) < len(b"1e309"):
        return
    if (_judged and data in _judged) or _may_be_infinite(data):  # even an empty dict hashes what is looked up
        check_json(data, where=where, max_bytes=max_bytes)
    else:
        check_limits(data, where=where, max_bytes=max_bytes)


_judged: Final[dict[bytes, str]] = {}
"""Faults of large values in requests being served. An empty text means no fault."""


def is_judged_slowly(data: bytes) -> bool:
    """True if numbers or brackets of the document need a look one by one."""
    return data.count(b"[") + data.count(b"{") > _CONTAINERS_MAX or _may_be_infinite(data)


def judging(data: bytes) -> Iterator[None]:
    """Look at a part of a decoded document in slices of some milliseconds, and keep the fault for `check_raw`."""
    for fault in _faults(data, DEPTH_MAX, numbers=True):
        if fault:
            break
        yield
    else:
        fault = ""
    _judged[data] = fault


def forget_judged(values: Iterable[bytes]) -> None:
    for value in values:
        _judged.pop(value, None)


def same_json(a: bytes, b: bytes) -> bool:
    """Spaces and key order do not count. 1 and 1.0 differ."""
    return _sorted(read_json(a)) == _sorted(read_json(b))


def read_json(data: bytes) -> object:
    """Decode a document that `check_json` has taken. msgspec takes 8 µs for a number like 1e300."""
    return json.loads(data) if _has_long_exponents(data) else _decode(data)


def check_limits(data: bytes, *, where: str, max_bytes: int = VALUE_BYTES_MAX, max_depth: int = DEPTH_MAX) -> None:
    """Raise `BadValue` for data too large, too deep, or with too long a number."""
    _check_size(data, where, max_bytes)
    _raise(where, _faults(data, max_depth))


def check_text(value: str, *, where: str, max_bytes: int) -> None:
    """Raise `BadValue` for a lone surrogate, a NUL, or more than `max_bytes` of UTF-8."""
    # A printable string has neither; a character takes at most four bytes.
    if value.isprintable() and len(value) * 4 <= max_bytes:
        return
    if "\0" in value:
        raise BadValue(f"{where}: holds a NUL character (at position {value.index(chr(0))}); leave it out")
    size = _utf8_bytes(value, where)
    if size > max_bytes:
        raise BadValue(f"{where}: {size:,} bytes of UTF-8; the limit is {max_bytes:,}")


def check_name(value: str, *, where: str, max_bytes: int = NAME_BYTES_MAX) -> None:
    """Raise `BadValue` unless `value` is one visible line.

    Control characters would break log lines and headers; direction marks would make two names look alike.
    """
    if value and value.isprintable() and len(value) * 4 <= max_bytes:
        return
    if not value:
        raise BadValue(f"{where}: is empty")
    check_text(value, where=where, max_bytes=max_bytes)
    found = _NOT_IN_NAMES.search(value)
    if found is not None:
        raise BadValue(f"{where}: holds {found[0]!r} (at position {found.start()}), which a name may not hold")


LABEL_BYTES_MAX: Final = 200


def scrub_text(text: str, max_bytes: int = ERROR_BYTES_MAX) -> str:
    """Make any `text` recordable; never raises.

    Lone surrogates become U+FFFD, control characters except newline and tab their pictures (␀, ␛). A note of the length
    ends a text that was cut.
    """
    text = str.__str__(text)
    if text.isprintable() and len(text) * 4 <= max_bytes:
        return text
    length = len(text)
    # A character takes at least one byte, so the rest can go first.
    text = text[: max_bytes + 1].replace("\r\n", "\n").translate(_PICTURES)
    data = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    if len(data) <= max_bytes and length <= max_bytes:
        return data.decode()
    mark = f"… [cut, {length:,} characters in all]".encode()
    if len(mark) > max_bytes:
        mark = b""
    return (data[: max_bytes - len(mark)] + mark).decode("utf-8", "ignore")


def commas_in(data: bytes) -> int:
    """Count the commas outside strings. A list has at most one item more."""
    return sum(part.count(b",") for part in _outside_strings(data, _NOT_COMMAS))


def has_more_parts(data: bytes, most: int) -> bool:
    """True for more than `most` commas and opening brackets outside strings."""
    return sum(map(data.count, (b",", b"[", b"{"))) > most < sum(map(len, _outside_strings(data, _NOT_PARTS)))


def split_path(complaint: str) -> tuple[str, str]:
    """Split a complaint of msgspec into path and text.

    >>> split_path("Expected `int`, got `str` - at `$.items[3].price`")
    ('.items[3].price', 'Expected `int`, got `str`')
    """
    found = _MSGSPEC_PATH.search(complaint)
    if found is None:
        return "", complaint
    return found[2], complaint[: found.start()] + (" (in a key)" if found[1] else "")


def _check_size(data: bytes | memoryview, where: str, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise BadValue(f"{where}: {len(data):,} bytes of JSON; the limit is {max_bytes:,}")


def _raise(where: str, faults: Iterable[str]) -> None:
    for fault in faults:
        if fault:
            raise BadValue(f"{where}: {fault}")


def _faults(data: bytes, max_depth: int, *, numbers: bool = False) -> Iterator[str]:
    """Yield the fault of a document whose syntax is right. Empty texts come between slices of the work."""
    if numbers and _may_be_infinite(data):
        for outside in _outside_strings(data):
            if _has_digits(outside, NUMBER_DIGITS_MAX + 1):
                yield _LONG_NUMBER
            yield _INFINITE if _may_be_infinite(outside) and _is_infinite(outside) else ""
    if len(data) <= 2 * max_depth:
        return
    half, depth = max_depth // 2, 0
    if _has_more(data, b"[", half) or _has_more(data, b"{", half):
        for brackets in _outside_strings(data, _NOT_BRACKETS):
            depth = _depth(brackets, depth, max_depth)
            yield _too_deep(max_depth) if depth > max_depth else ""
    if _has_digits(data, INTEGER_DIGITS_MAX + 1):
        for outside in _outside_strings(data):
            is_long = _has_long_integer(outside) or _has_digits(outside, NUMBER_DIGITS_MAX + 1)
            yield _LONG_NUMBER if is_long else ""


def _is_read_fast(data: bytes) -> bool:
    if len(data) < _SKIM_BYTES_MIN:
        return not _has_long_exponents(data)
    return not any(_has_more(data, byte, _PARTS_MAX) for byte in (b",", b"[", b"{"))


def _has_more(data: bytes, byte: bytes, amount: int) -> bool:
    """True if `byte` occurs more than `amount` times. Ten times as fast as counting all."""
    if len(data) < _COUNT_BYTES_MAX:
        return data.count(byte) > amount
    at = -1
    for _ in range(amount + 1):
        at = data.find(byte, at + 1)
        if at < 0:
            return False
    return True


def _is_infinite(outside: bytes) -> bool:
    # Each number once: a long list is often many times the same.
    numbers = set(outside.replace(b"true", b" ").replace(b"false", b" ").translate(_BLANKS_BETWEEN_NUMBERS).split())
    # Integers never overflow.
    return any(map(math.isinf, map(float, numbers))) and any(
        math.isinf(float(number)) for number in numbers if not number.lstrip(b"-").isdigit()
    )


def _has_long_exponents(data: bytes) -> bool:
    """True for an exponent of three digits, perhaps in a string."""
    shape = data.translate(_SHAPES_OF_NUMBERS)
    return b"0e000" in shape or b"0e+000" in shape


def _may_be_infinite(data: bytes) -> bool:
    """True for an exponent of three digits or a long run of digits, perhaps in a string."""
    if len(data) > _COUNT_BYTES_MAX:
        data = _outside_few_strings(data)
    digits = data.translate(_DIGITS_AS_ZEROS, b"+")
    return b"e000" in digits or (len(digits) > len(_LARGE_DIGITS) and _LARGE_DIGITS in digits)


def _outside_strings(data: bytes, leaving_out: bytes = b"") -> Iterator[bytes]:
    """Yields `data` without strings and without the bytes of `leaving_out`, which contains no quote. Slices cut only
    too long numbers."""
    data = _without_escaped_quotes(data)
    if leaving_out:
        # This empties most strings. Nothing stands between two adjacent quotes, string or not.
        data = data.translate(None, leaving_out).replace(b'""', b"")
    at = 0
    while at < len(data):
        end = at + _SLICE_BYTES
        if data.count(b'"', at, end) % 2:  # in a string
            end = data.find(b'"', end) + 1 or len(data)
        rest = _REST_OF_NUMBER.match(data, end)
        end = len(data) if rest is None else rest.end()
        yield b"".join(data[at:end].split(b'"')[::2])
        at = end


def _outside_few_strings(data: bytes) -> bytes:
    """`data` without strings, if few. In one long text `find` is the fastest way."""
    data = _without_escaped_quotes(data)
    quotes = [-1]
    while (at := data.find(b'"', quotes[-1] + 1)) >= 0:
        if len(quotes) > _FEW_QUOTES:
            return data
        quotes.append(at)
    return b"".join(data[a + 1 : b] for a, b in zip(quotes[::2], [*quotes[1::2], len(data)], strict=False))


def _without_escaped_quotes(data: bytes) -> bytes:
    # Backslashes come in pairs from the left, as `replace` takes them.
    return data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data


def _depth(brackets: bytes, depth: int, max_depth: int) -> int:
    """The depth behind `brackets`, or `max_depth + 1` if the depth was greater in between."""
    brackets = brackets.translate(_SQUARE)
    while brackets.count(b"][") * 8 > len(brackets):  # between siblings
        brackets = brackets.replace(b"][", b"")
    steps = memoryview(brackets.translate(_BRACKET_STEPS)).cast("b")
    if max_depth + 1 in accumulate(steps, initial=depth):
        return max_depth + 1
    return depth + 2 * brackets.count(b"[") - len(brackets)


def _has_long_integer(outside: bytes) -> bool:
    digits = outside.translate(_DIGITS_AS_ZEROS)
    at = digits.find(_LONG_DIGITS)
    while at >= 0:
        if _INTEGER.match(outside, at) is not None:
            return True
        found = _ZEROS.match(digits, at)
        at = -1 if found is None else digits.find(_LONG_DIGITS, found.end())
    return False


def _has_digits(data: bytes, length: int) -> bool:
    """A row of `length` digits covers four adjacent samples, which are checked first."""
    if len(data) < length or _FOUR_DIGITS.search(data[:: length // 4]) is None:
        return False
    return b"0" * length in data.translate(_DIGITS_AS_ZEROS)


def _utf8_bytes(value: str, where: str) -> int:
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        found = value[error.start]
        raise BadValue(f"{where}: holds a lone surrogate {found!r} (at position {error.start})") from None


def _too_deep(max_depth: int) -> str:
    return f"nested deeper than {max_depth} levels"


def _complaint(where: str, data: bytes, error: Exception, max_depth: int) -> str:
    """The fault in the sender's words; msgspec's message speaks of bytes."""
    if isinstance(error, RecursionError):
        return f"{where}: {_too_deep(max_depth)}"
    if data.startswith(b"\xef\xbb\xbf"):
        return f"{where}: starts with a byte order mark; send UTF-8 without one"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\0" in data[:4] and len(data) % 2 == 0):
        return f"{where}: is not UTF-8 (it looks like UTF-16 or UTF-32)"
    try:
        data.decode()
    except UnicodeDecodeError as undecodable:
        return f"{where}: is not UTF-8 (byte {undecodable.start})"
    if not data.strip():
        return f"{where}: is empty; send JSON, `null` if there is nothing to say"
    message = str(error)
    if "Integer value out of range" in message:
        return f"{where}: {_LONG_NUMBER}"
    if "Number out of range" in message:
        return f"{where}{split_path(message)[0]}: {_INFINITE}"
    found = _MSGSPEC_BYTE.search(message)
    at = int(found[1]) if found else len(data)
    if "surrogate" in message or "end of hex escape" in message or (found is None and _SURROGATE_AT_END.search(data)):
        return f"{where}: holds a lone surrogate escape (before byte {at})"
    word = _NOT_A_NUMBER.match(data, max(at - 1, 0)) or _NOT_A_NUMBER.match(data, at)
    if word is not None:
        return f"{where}: {word[0].decode()} (byte {word.start()}) is not JSON"
    if at < len(data) and data[at] < 0x20:
        return f"{where}: holds a raw control character 0x{data[at]:02x} (byte {at}); escape it"
    return f"{where}: is not JSON: {message.removeprefix('JSON is malformed: ').lower()}"


_INFINITE: Final = "holds a number that overflows to infinity"
_LONG_NUMBER: Final = (
    f"holds an integer of more than {INTEGER_DIGITS_MAX:,} digits, or a number of more than {NUMBER_DIGITS_MAX:,}; "
    "send it as a string"
)
_INTEGER: Final = re.compile(rb"(?<![0-9.eE+])(?<![eE]-)[0-9]++(?![.eE])")
_LONG_DIGITS: Final = b"0" * (INTEGER_DIGITS_MAX + 1)
_ZEROS: Final = re.compile(rb"0+")
# A number of that length has a row of too many digits.
_REST_OF_NUMBER: Final = re.compile(rb"[0-9.eE+-]{0,%d}+" % (4 * NUMBER_DIGITS_MAX))
_FOUR_DIGITS: Final = re.compile(rb"[0-9]{4}")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_NOT_COMMAS: Final = bytes(byte for byte in range(256) if byte not in b',"')
_NOT_PARTS: Final = bytes(byte for byte in range(256) if byte not in b',[{"')
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
# Signed bytes: an opening bracket is +1, a closing one -1.
_BRACKET_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_SHAPES_OF_NUMBERS: Final = bytes.maketrans(b"123456789E-", b"000000000e+")
_BLANKS_BETWEEN_NUMBERS: Final = bytes(byte if byte in b"0123456789.eE+-" else 0x20 for byte in range(256))
_MSGSPEC_PATH: Final = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_MSGSPEC_BYTE: Final = re.compile(r"\(byte (\d+)\)$")
_SURROGATE_AT_END: Final = re.compile(rb'\\u[dD][89abAB][0-9a-fA-F]{2}[^\\]{0,6}["\]}\s]*$')
_NOT_A_NUMBER: Final = re.compile(rb"-?Infinity|NaN")
_NOT_IN_NAMES: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PICTURES: Final = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
