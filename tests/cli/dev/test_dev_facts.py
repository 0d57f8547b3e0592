"""Facts of a worker within what its program prints."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.cli.processes.dev_facts import FACT_BYTES_MAX, MARK, Reader

FACT = MARK + b'{"claimed": "x"}\n'
PRINTS = st.sampled_from([b"a", b"line\n", b"\x1e", b"\x1eperd", b"\x1eperdure {", b"\x1eperdure 7\n", b"\xff"])


def read(chunks: list[bytes]) -> tuple[bytes, list[Any]]:
    facts: list[Any] = []
    reader = Reader(facts.append)
    return b"".join(reader.rest_of(chunk) for chunk in chunks), facts


@given(st.lists(st.one_of(PRINTS, st.just(FACT)), max_size=12), st.lists(st.integers(0, 300), max_size=12))
def test_facts_are_found_and_the_rest_is_kept_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    # A program that begins a fact itself may swallow the next one; here each fact begins after a newline.
    sent = b"".join(b"\n" + part if part is FACT else part for part in parts) + b"\n"
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    chunks = [sent[begin:end] for begin, end in itertools.pairwise(places)]
    rest, facts = read(chunks)
    assert rest == sent.replace(FACT, b"")
    assert facts == [{"claimed": "x"}] * parts.count(FACT)


def test_what_only_begins_like_a_fact_is_not_kept_for_ever() -> None:
    begun = MARK + b"x" * FACT_BYTES_MAX
    assert read([begun]) == (begun, [])
