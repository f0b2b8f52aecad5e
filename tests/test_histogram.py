"""Histograms count as Prometheus reads them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from server.histogram import Histogram


def test_a_bound_is_within_itself() -> None:
    """`le` means less or equal; what is beyond the last bound is in infinity only."""
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.1000001, 1.0, 5.0):
        histogram.observe(seconds)
    assert [*histogram.cumulative()] == [("0.1", 1), ("1.0", 3), ("+Inf", 4)]
    assert math.isclose(histogram.total_s, 6.2000001)


@given(st.lists(st.floats(0, 100)))
def test_counts_are_those_of_the_definition(durations: list[float]) -> None:
    """Each bucket holds exactly the durations up to its bound, whatever they are."""
    histogram = Histogram((0.01, 0.5, 2.0))
    for seconds in durations:
        histogram.observe(seconds)
    for bound, count in histogram.cumulative():
        assert count == sum(seconds <= float(bound) for seconds in durations)
