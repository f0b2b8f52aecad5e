"""The agenda: what is due comes in order, and what has ended is not held."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.realtime.agenda import ENDED, Agenda


def subscription(*, is_open: bool = True) -> Any:
    """All that an agenda looks at."""
    return SimpleNamespace(is_open=is_open)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans())), st.integers(-1, 21))
def test_what_is_due_comes_in_its_order(given_: list[tuple[int, bool]], until: int) -> None:
    """All that are open and due come, the earliest first, of one moment as they were noted; others stay."""
    agenda, noted = Agenda(), [(at, subscription(is_open=is_open)) for at, is_open in given_]
    for at, one in noted:
        agenda.put(one, at)
    in_order = sorted(noted, key=lambda pair: pair[0])
    assert agenda.take(until) == [one for at, one in in_order if at <= until and one.is_open]
    assert agenda.take(21) == [one for at, one in in_order if at > until and one.is_open]
    assert agenda.next_at == float("inf")


def test_what_has_ended_is_let_go() -> None:
    """However often channels come and go before they are due, few of those that ended are held."""
    agenda, open_ones = Agenda(), [subscription() for _ in range(10)]
    for one in open_ones:
        agenda.put(one, 60.0)
    for _ in range(1000):
        one = subscription()
        agenda.put(one, 60.0)
        one.is_open = False
    assert len(agenda._entries) <= 2 * len(open_ones) + ENDED
    assert agenda.take(60.0) == open_ones
