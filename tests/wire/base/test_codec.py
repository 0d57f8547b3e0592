"""The rules for JSON bytes, names and texts, against an independent judge."""

from __future__ import annotations

import doctest
import json
import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn
from unittest import mock

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure.store.base.input_checks import CHECKED_PARTS_MAX, check_input
from perdure.wire.base import codec
from perdure.wire.base.codec import (
    check_json,
    check_limits,
    check_name,
    check_raw,
    check_text,
    forget_judged,
    judging,
    read_json,
    same_json,
    scrub_text,
)
from perdure.wire.base.errors import BadValue

# Above 16 KiB a document is skimmed instead of decoded: the same rules in other code. White space changes no verdict.
PADDING = {"decoded": b"", "skimmed": b" " * (16 << 10)}
padded = pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)


class Frame(msgspec.Struct):
    part: msgspec.Raw


def check_part(data: bytes, *, long: bool) -> None:
    """Check a part of a request like the server. `long` selects the code for long parts."""
    try:
        frame = msgspec.json.decode(b'{"part":%b}' % data, type=Frame)
        data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadValue(f"frame: {error}") from None
    if bytes(frame.part) != data.strip(b" \t\r\n"):
        raise BadValue("frame: holds more than the part")
    with mock.patch.object(codec, "_COUNT_BYTES_MAX", 0 if long else 1 << 20):
        try:
            check_raw(frame.part, where="part")
        except BadValue as refusal:
            assert judged(bytes(frame.part)) in (refusal.message, f"part: {codec._INFINITE}")
            raise
        assert judged(bytes(frame.part)) == ""


def judged(data: bytes) -> str:
    """The judge's refusal of a part, as in a large body, and in the smallest slices."""
    with mock.patch.object(codec, "_SLICE_BYTES", 1):
        for _ in judging(data):
            pass
    try:
        check_json(data, where="part")
    except BadValue as refusal:
        return refusal.message
    finally:
        forget_judged([data])
        assert not codec._judged
    return ""


def nested(depth: int, opening: str = "[", closing: str = "]", inner: str = "") -> bytes:
    return (opening * depth + inner + closing * depth).encode()


ACCEPTED = {
    "null": b"null",
    "white space around": b" \t\r\n{} \n",
    "an escaped NUL": rb'"\u0000"',
    "duplicate keys": b'{"a":1,"a":2}',
    "minus zero": b"-0.0",
    "an integer that no float holds": b"9007199254740993",
    "2**63": b"9223372036854775808",
    "2**64": b"18446744073709551616",
    "4,000 digits": b"9" * 4_000,
    "4,000 digits and a sign": b"-" + b"9" * 4_000,
    "an integer beyond the floats": b"1" + b"0" * 400,
    "many digits, but a small number": b"1" + b"0" * 400 + b".0e-200",
    "5,000 decimals": b"0." + b"9" * 5_000,
    "15,000 decimals": b"[%b]" % b",".join([b"0." + b"9" * 15_000] * 20),
    "the largest float": b"1.7976931348623157e308",
    "a float that rounds to zero": b"1e-999",
    "a capital E": b"1E+5",
    "a surrogate pair": rb'"\ud83d\ude00"',
    "a backslash before ud800": rb'"\\ud800"',
    "an integer beyond the floats beside a large exponent": b"[1" + b"0" * 400 + b",1e300]",
    "210 digits and a large exponent that is negative": b"[1" + b"0" * 210 + b"e-100,1E+307]",
    "words that look like numbers": b'["1e999","NaN","' + b"9" * 5_000 + b'"]',
    "brackets in a string": b'["' + b"[" * 100 + b'"]',
    "brackets in a string behind quotes": rb'["\\\"' + b"[" * 100 + rb'\\",1]',
    "64 arrays": nested(64),
    "64 objects": nested(64, '{"a":', "}", "1"),
    "many siblings": b"[" + b"[]," * 1_000 + b"1]",
    "a line separator": '"\u2028"'.encode(),
    "DEL": b'"\x7f"',
}


@padded
@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
def test_json_that_every_reader_can_read_is_accepted(data: bytes, padding: bytes) -> None:
    check_json(data + padding, where="input")
    check_json(memoryview(data + padding), where="input")
    check_part(data, long=bool(padding))


REFUSED = {
    "a byte order mark": (b"\xef\xbb\xbf1", "byte order mark"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
    "UTF-16, big end first": ("[12]".encode("utf-16-be"), "UTF-16"),
    "UTF-32": ("[1]".encode("utf-32-be"), "UTF-16 or UTF-32"),
    "Latin-1": (b'"\xe9"', "not UTF-8 (byte 1)"),
    "Latin-1 in a key": (b'{"\xe9":1}', "not UTF-8 (byte 2)"),
    "an overlong form": (b'"\xc0\x80"', "not UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8"),
    "beyond Unicode": (b'"\xf4\x90\x80\x80"', "not UTF-8"),
    "nothing": (b"", "is empty"),
    "white space": (b" \n", "is empty"),
    "two values": (b"1 2", "trailing characters"),
    "a trailing comma": (b"[1,]", "trailing comma"),
    "a comment": (b"/**/1", "not JSON"),
    "an open array": (b"[1", "not JSON"),
    "a leading zero": (b"01", "not JSON"),
    "a plus": (b"+1", "not JSON"),
    "a bare key": (b"{1:2}", "not JSON"),
    "a NUL behind": (b"12\x00", "trailing characters"),
    "NaN": (b'{"a": [1, NaN]}', "NaN (byte 10)"),
    "Infinity": (b"[Infinity]", "Infinity (byte 1)"),
    "-Infinity": (b"[-Infinity]", "-Infinity (byte 1)"),
    "1e999": (b"1e999", "overflows to infinity"),
    "-1E+0999": (b"[-1E+0999]", "overflows to infinity"),
    "1.8e308": (b'{"a":1.8e308}', "overflows to infinity"),
    "400 digits before the point": (b"1" + b"0" * 400 + b".0", "overflows to infinity"),
    "1e999 among true and false": (b"[true,false,1e999]", "overflows to infinity"),
    "210 digits and an exponent of two": (b"[1" + b"0" * 210 + b"e99]", "overflows to infinity"),
    "1e0999": (b"[1e0999]", "overflows to infinity"),
    "1e309 behind words": (b'["1e999","true",1e309]', "overflows to infinity"),
    "4,001 digits": (b"9" * 4_001, "more than 4,000 digits"),
    "4,001 digits and a sign": (b"[-" + b"9" * 4_001 + b"]", "more than 4,000 digits"),
    "15,001 decimals": (b"[0." + b"9" * 15_001 + b"]", "a number of more than 15,000"),
    "15,001 decimals before an exponent": (b"[1e-320,0." + b"9" * 15_001 + b"e-99]", "a number of more than 15,000"),
    "a number without end": (b"[1e-320,0." + b"1" * 200_000 + b"e-" + b"1" * 200_000 + b"]", "a number of more than"),
    "5,000 digits": (b'{"a":' + b"9" * 5_000 + b"}", "more than 4,000 digits"),
    "a lone high surrogate": (rb'"\ud800"', "lone surrogate"),
    "a lone high surrogate before more": (rb'"\uD800 and more"', "lone surrogate"),
    "a lone low surrogate": (rb'"\udc00"', "lone surrogate"),
    "a pair the wrong way round": (rb'"\ude00\ud83d"', "lone surrogate"),
    "a lone surrogate in a key": (rb'{"\ud800":1}', "lone surrogate"),
    "a raw NUL": (b'"\x00"', "control character 0x00 (byte 1)"),
    "a raw tab": (b'["a\tb"]', "control character 0x09 (byte 3)"),
    "a raw newline in a key": (b'{"\n":1}', "control character 0x0a (byte 2)"),
    "an unknown escape": (rb'"\x41"', "escape"),
    "65 arrays": (nested(65), "deeper than 64"),
    "65 objects": (nested(65, '{"a":', "}", "1"), "deeper than 64"),
    "65 levels beside many": (b"[" + b"[]," * 1_000 + nested(64) + b"]", "deeper than 64"),
    "65 levels behind a quote": (rb'["\"",' + nested(64) + b"]", "deeper than 64"),
    "100,000 arrays": (nested(100_000), "deeper than 64"),
    "1,000,000 opening brackets": (b"[" * 1_000_000, "deeper than 64"),
}


@padded
@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_json_that_some_reader_cannot_read_is_refused(data: bytes, words: str, padding: bytes) -> None:
    with pytest.raises(BadValue) as refusal:
        check_json(data + padding, where="input")
    assert refusal.value.message.startswith("input")
    assert words in refusal.value.message
    with pytest.raises(BadValue):
        check_part(data, long=bool(padding))


def test_the_path_of_a_number_is_named() -> None:
    data = b"[1,1e999]"
    for check in (partial(check_json, data), partial(check_raw, msgspec.Raw(data))):
        with pytest.raises(BadValue, match=r"^items\[1\]\.payload\[1\]: holds a number that overflows"):
            check(where="items[1].payload")


def test_size_is_looked_at_first() -> None:
    check_json(b'"' + b"a" * ((8 << 20) - 2) + b'"', where="payload")
    with pytest.raises(BadValue, match=r"^payload: 8,388,609 bytes of JSON; the limit is 8,388,608$"):
        check_json(b"[" * ((8 << 20) + 1), where="payload")
    with pytest.raises(BadValue, match="the limit is 3"):
        check_json(b"1234", where="payload", max_bytes=3)
    with pytest.raises(BadValue, match="deeper than 2 levels"):
        check_json(b"[[[]]]", where="payload", max_depth=2)


@pytest.mark.parametrize("item", [b"1e9", b"1e307", b"11.5e306", b"1234567", b"[]", b'""', b'{"a":"b"}'])
def test_a_large_document_costs_little_more_than_a_look(item: bytes) -> None:
    data = b"[" + b",".join([item] * ((8 << 20) // (len(item) + 1) - 1)) + b"]"
    begun = time.thread_time()
    check_json(data, where="payload")
    assert time.thread_time() - begun < 1.5  # 0.15 s at most on a machine of 2025; 1e307 took 9 s


@pytest.mark.parametrize("number", [b"1e300", b"9E+307", b"1.5e-320", b"-1e290"])
def test_many_small_documents_cost_no_more_than_a_large_one(number: bytes) -> None:
    """msgspec takes 8 µs for a number near the ends of its range: 31 MiB of such numbers stopped a server for 40 s."""
    plain, odd = (b"[%b]" % b",".join([item] * 2_000) for item in (b"1e20", number))

    def cost(check: Callable[[], object]) -> float:
        begun = time.thread_time()
        for _ in range(10):
            check()
        return time.thread_time() - begun

    assert cost(lambda: check_json(odd, where="payload")) < 20 * cost(lambda: check_json(plain, where="payload"))
    assert cost(lambda: check_input(lambda _: None, odd, "payload")) < 20 * cost(lambda: read_json(plain))
    assert cost(lambda: same_json(odd, odd + b" ")) < 20 * cost(lambda: same_json(plain, plain + b" "))


def test_an_input_of_many_parts_is_not_checked() -> None:
    """1 MiB of brackets took half a second."""

    def refuse(value: object) -> tuple[str, str]:
        return "", "is wrong"

    with pytest.raises(BadValue, match="is wrong"):
        check_input(refuse, b"[" + b'"[{,",' * 40_000 + b"1]", "payload")
    check_input(refuse, b"[%b[]]" % (b"[]," * (CHECKED_PARTS_MAX // 2)), "payload")


@pytest.mark.parametrize("number", [b"1e300", b"-2.5E-310", b"1e+290", b"1.7976931348623157e308"])
def test_numbers_with_long_exponents_are_compared_by_their_values(number: bytes) -> None:
    assert same_json(b'{"a":%b,"b":"\\u00e4"}' % number, b'{ "b":"\xc3\xa4", "a":%b}' % number)
    assert not same_json(b"[%b]" % number, b"[%b]" % number.replace(b"1", b"3").replace(b"2", b"4"))


def test_limits_alone_can_be_checked() -> None:
    check_limits(nested(64), where="result")
    for data in (nested(65), b"9" * 4_001, b'"' + b"a" * (8 << 20) + b'"'):
        with pytest.raises(BadValue, match=r"^result: "):
            check_limits(data, where="result")


def readable(data: bytes) -> bool:
    """The same rules over again, by the standard library and a walk."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(word)

    def finite(digits: str) -> float:
        number = float(digits)
        is_long = any(len(row) > 15_000 for row in re.findall("[0-9]+", digits))
        return number if math.isfinite(number) and not is_long else refuse(digits)

    def short(digits: str) -> int:
        return int(digits) if len(digits.lstrip("-")) <= 4_000 else refuse(digits)

    def depth(value: Any) -> int:
        if isinstance(value, list | tuple):
            return 1 + max(map(depth, value), default=0)
        return 0

    class Pairs(list[Any]):
        """An object with all its keys, duplicates too."""

    def flat(pairs: list[tuple[str, Any]]) -> Pairs:
        for key, _ in pairs:
            key.encode()
        return Pairs(item for _, item in pairs)

    def no_surrogates(value: Any) -> None:
        if isinstance(value, str):
            value.encode()
        elif isinstance(value, list):
            for item in value:
                no_surrogates(item)

    try:
        value = json.loads(
            data.decode(), parse_constant=refuse, parse_float=finite, parse_int=short, object_pairs_hook=flat
        )
        no_surrogates(value)
    except (ValueError, RecursionError):
        return False
    return depth(value) <= 64


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NASTY = [
    b"e", b"E9", b"1e999", b"e308", b"9" * 310, b"9" * 4_001, b".", b"-", b"NaN", b"Infinity", b"true", b'"', b"\\",
    b'\\"', b"\\\\", rb"\u0000", rb"\ud800", rb"\udc00", rb"\ud83d\ude00", b"\x00", b"\n", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"[", b"]", b"{", b"}", b",", b":", b"[" * 64, b"]" * 64, "é😀".encode(), b" ",
]  # fmt: skip
pieces = st.binary(max_size=3) | st.sampled_from(NASTY)


@given(
    value=documents,
    ascii_only=st.booleans(),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), pieces), max_size=3),
    wrapped=st.sampled_from([0, 62, 63, 64]),
)
@example(value="\\", ascii_only=True, edits=[(1.0, 0, b"[" * 64)], wrapped=0)
def test_the_verdict_is_the_one_of_an_independent_judge(
    value: Any, ascii_only: bool, edits: list[tuple[float, int, bytes]], wrapped: int
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    data = b"[" * wrapped + data + b"]" * wrapped
    for place, removed, piece in edits:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + removed :]
    expected = readable(data)
    checks: list[Callable[[], None]] = [
        *(partial(check_json, data + padding, where="input") for padding in PADDING.values()),
        *(partial(check_part, data, long=long) for long in (False, True)),
    ]
    for check in checks:
        try:
            check()
        except BadValue as refusal:
            assert not expected, refusal
            refusal.message.encode()
        else:
            assert expected, data


GOOD_NAMES = [
    "order",
    "order-7",
    "a b",
    "../x",
    "заказ",
    "注文",
    "שלום",
    "é" * 128,
    "👩‍🚀".replace("\u200d", ""),
    "a" * 256,
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_of_every_script_are_accepted(name: str) -> None:
    check_name(name, where="workflow_id")


BAD_NAMES = {
    "empty": ("", "is empty"),
    "NUL": ("a\0b", "NUL"),
    "a header injection": ("a\r\nSet-Cookie: x", r"'\r' (at position 1)"),
    "a tab": ("a\tb", r"'\t'"),
    "an escape": ("\x1b[2J", r"'\x1b' (at position 0)"),
    "a C1 control": ("a\x85", r"'\x85'"),
    "a line separator": ("a\u2028b", r"'\u2028'"),
    "a turn of the writing direction": ("gnp\u202eexe", r"'\u202e'"),
    "an isolate": ("a\u2066b", r"'\u2066'"),
    "a lone surrogate": ("a\ud800", "lone surrogate"),
    "257 bytes": ("a" * 257, "257 bytes of UTF-8; the limit is 256"),
    "258 bytes in 129 characters": ("é" * 129, "258 bytes"),
    "a megabyte": ("a" * 1_000_000, "1,000,000 bytes"),
}


@pytest.mark.parametrize(("name", "words"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_would_not_show_as_what_it_is_is_refused(name: str, words: str) -> None:
    with pytest.raises(BadValue) as refusal:
        check_name(name, where="workflow_id")
    assert refusal.value.message.startswith("workflow_id: ")
    assert words in refusal.value.message
    refusal.value.message.encode()


def test_a_text_may_have_lines_and_be_empty_but_not_be_unstorable() -> None:
    for text in ("", "two\nlines\tand a tab", "\x1b", "é" * 10):
        check_text(text, where="error", max_bytes=40)
    for text, words in (("a\0", "NUL"), ("\udc80", "lone surrogate"), ("é" * 21, "42 bytes"), ("\n" * 41, "41 bytes")):
        with pytest.raises(BadValue, match=rf"^error: .*{words}"):
            check_text(text, where="error", max_bytes=40)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("plain", "plain"),
        ("", ""),
        ("two\nlines\tand é😀", "two\nlines\tand é😀"),
        ("dos\r\nlines", "dos\nlines"),
        ("a\0b\x1b[2J\x7f\r", "a␀b␛[2J␡␍"),
        ("\x85", "\ufffd"),
        ("\ud800x\udfff", "\ufffdx\ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_what_cannot_be_recorded_is_replaced(text: str, scrubbed: str) -> None:
    assert scrub_text(text, 100) == scrubbed


def test_a_long_text_is_cut_between_characters_and_says_so() -> None:
    assert scrub_text("é" * 100, 64) == "é" * 16 + "… [cut, 100 characters in all]"
    assert len(scrub_text("a" * 65, 64)) < 65
    assert scrub_text("😀" * 10, 9) == "😀😀"
    assert scrub_text("anything", 0) == ""


def test_a_hostile_str_is_scrubbed_like_any_other() -> None:
    class Hostile(str):
        def __str__(self) -> str:
            raise RuntimeError("no")

        def isprintable(self) -> bool:
            raise RuntimeError("no")

    assert scrub_text(Hostile("a\0")) == "a␀"


@given(st.text(st.characters(codec=None, exclude_categories=())), st.integers(0, 300))
def test_scrubbed_text_is_always_recordable(text: str, max_bytes: int) -> None:
    scrubbed = scrub_text(text, max_bytes)
    check_text(scrubbed, where="error", max_bytes=max_bytes)
    assert scrub_text(scrubbed, max_bytes) == scrubbed


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(codec).failed == 0
