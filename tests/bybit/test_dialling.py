"""Dialling: no schedule opens more connections than the share, and pauses grow to a bound."""

from hypothesis import given
from hypothesis import strategies as st

from server.bybit.dialling import CONNECTS, CONNECTS_PERIOD_S, FIRST_PAUSE_S, LAST_PAUSE_S, Dialling


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(share=st.sampled_from([1.0, 0.5, 0.25, 0.001]), steps=st.lists(st.floats(0, 40), max_size=300))
def test_the_budget_of_connections(share: float, steps: list[float]) -> None:
    """Whoever opens as many as are allowed, whenever, opens no more than the share in any period."""
    time = Time()
    dialling = Dialling(share=share, clock=time)
    opened: list[float] = []
    for step in steps:
        time.now += step
        while dialling.wait_s() <= 0:
            dialling.take()
            opened.append(time.now)
    allowed = max(2, CONNECTS * share)
    for at in opened:
        assert sum(at - CONNECTS_PERIOD_S < other <= at for other in opened) <= allowed


def test_a_ban_holds_for_all_and_ends() -> None:
    """After a ban nothing is opened for its time and a little of chance, then again."""
    time = Time()
    dialling = Dialling(ban_s=60.0, clock=time, jitter=lambda: 1.0)
    assert dialling.wait_s() == 0
    dialling.ban()
    assert dialling.wait_s() == 75.0
    time.now = 75.0
    assert dialling.wait_s() == 0


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_pauses(failures: int, chance: float) -> None:
    """A pause is anywhere from the first to a bound that doubles with each failure and then stays."""
    pause_s = Dialling(jitter=lambda: chance).pause_s(failures)
    assert FIRST_PAUSE_S <= pause_s <= LAST_PAUSE_S
    assert failures > 5 or pause_s <= FIRST_PAUSE_S * 2**failures
    assert Dialling(jitter=lambda: 1.0).pause_s(max(failures, 6)) == LAST_PAUSE_S
