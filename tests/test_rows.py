"""Rows: a tuple of rows in every respect but its size."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rows import BLOCK, Row, Rows


def row(number: int) -> Row:
    """A row that no other number has."""
    return (str(number * 60_000), f"{number}.10", f"{number}.20", "0.00000001", "1e-7", "-5", "")


def rows_of(start: int, length: int) -> tuple[Row, ...]:
    """Rows that follow each other."""
    return tuple(row(number) for number in range(start, start + length))


lengths = st.integers(0, 4 * BLOCK + 3)
steps = st.one_of(
    st.tuples(st.sampled_from(("last", "first", "plus", "after")), lengths),
    st.tuples(st.just("newest"), st.integers(10**6, 10**7)),
)


@given(lengths, st.lists(steps, max_size=8), st.slices(4 * BLOCK))
def test_rows_are_a_tuple(length: int, changes: list[tuple[str, int]], part: slice) -> None:
    """Whatever is cut off, put before, put behind or replaced: every row, slice and length is the tuple's."""
    packed, plain = Rows.of(rows_of(0, length)), rows_of(0, length)
    for name, number in changes:
        before = packed, plain
        if name == "newest" and plain:
            packed, plain = packed.with_newest(row(number)), (*plain[:-1], row(number))
        elif name == "last":
            packed, plain = packed.last(number), plain[-number:] if number else ()
        elif name == "first":
            packed, plain = packed.first(number), plain[:number]
        elif name == "plus":
            packed, plain = packed.plus(rows_of(5000, number)), plain + rows_of(5000, number)
        elif name == "after":
            packed, plain = packed.after(rows_of(9000, number)), rows_of(9000, number) + plain
        assert before[0] == before[1], "what it was made of has not changed"
        assert (len(packed), packed[:], packed[part], [*packed]) == (len(plain), plain, plain[part], [*plain])
        assert all(packed[place] == plain[place] for place in range(-len(plain), len(plain)))


def test_newest_may_be_packed() -> None:
    """Rows that were cut at the end of a block have their newest in it, and it can be replaced all the same."""
    rows = Rows.of(rows_of(0, 2 * BLOCK + 1)).first(BLOCK)
    assert rows[-1] == row(BLOCK - 1)
    assert rows.with_newest(row(9)) == (*rows_of(0, BLOCK - 1), row(9))


def test_rows_know_their_bounds() -> None:
    """A place outside is an error, as with a tuple; other lengths, rows and things are not equal."""
    rows = Rows.of(rows_of(0, 3))
    for place in (3, -4):
        with pytest.raises(IndexError):
            rows[place]
    assert rows != rows_of(0, 2)
    assert rows != rows_of(1, 3)
    assert rows != [*rows_of(0, 3)]
    assert repr(rows) == "<3 rows>"


def test_rows_are_small() -> None:
    """Packed rows take a fifth of what tuples of strings take at most, and know what they take."""
    moments = range(10**12, 10**12 + 5000 * 60_000, 60_000)
    plain = tuple((str(moment), *(f"{moment // 10**7}.{place}" for place in range(6))) for moment in moments)
    loose = sum(sys.getsizeof(one) + sum(map(sys.getsizeof, one)) for one in plain)
    assert 0 < Rows.of(plain).nbytes < loose / 5  # type: ignore[arg-type]
