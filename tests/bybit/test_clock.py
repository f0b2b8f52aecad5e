"""The exchange's clock against ours."""

from hypothesis import given
from hypothesis import strategies as st

from server.bybit.clock import RENEWED_MS, SLACK_MS, ExchangeClock, Offset

NOW_MS = 1_732_280_123_456
HOURS_MS = st.integers(-100_000_000, 100_000_000)
WAYS_MS = st.integers(0, 20_000)


@given(offset_ms=HOURS_MS, there_ms=WAYS_MS, back_ms=WAYS_MS)
def test_an_offset_and_its_uncertainty(offset_ms: int, there_ms: int, back_ms: int) -> None:
    """However long a question and its answer were under way, the true offset is within what is claimed."""
    clock = ExchangeClock(wall=lambda: NOW_MS)
    sent_ms = NOW_MS - there_ms - back_ms
    offset = clock.offset_of(sent_ms + there_ms + offset_ms, sent_ms)
    assert offset is not None
    assert abs(offset.ms - offset_ms) <= offset.uncertain_ms == (there_ms + back_ms) / 2


@given(known_ms=HOURS_MS, shown_ms=HOURS_MS, uncertain_ms=WAYS_MS)
def test_near_and_far(known_ms: int, shown_ms: int, uncertain_ms: int) -> None:
    """An answer agrees if nothing but slack and its way keep it from what is known, and it changes nothing."""
    clock = ExchangeClock()
    clock.set(Offset(known_ms, 0))
    assert clock.agrees(Offset(shown_ms, uncertain_ms)) is (abs(known_ms - shown_ms) <= SLACK_MS + uncertain_ms)
    assert clock.offset_ms == known_ms


def test_what_a_cache_repeats() -> None:
    """An answer that stays the same, for ever, takes the known offset not along with it."""
    now_ms = NOW_MS
    clock = ExchangeClock(wall=lambda: now_ms)
    clock.set(Offset(0, 0))
    believed = []
    for _ in range(10):
        believed.append(clock.agrees(clock.offset_of(NOW_MS, now_ms)))
        now_ms += 1000
    assert believed == [True] * 4 + [False] * 6


def test_nothing_known() -> None:
    """Before anything is known no offset agrees; an answer without a time says nothing and harms nothing."""
    clock = ExchangeClock()
    assert clock.offset_ms is None
    assert not clock.agrees(Offset(1, 1))
    assert clock.agrees(clock.offset_of(0, clock.now_ms()))
    assert clock.offset_ms is None


def test_a_measurement_grows_old() -> None:
    """A measurement is due at first, after ten minutes, and after our clock was set back."""
    now_ms = float(NOW_MS)
    clock = ExchangeClock(wall=lambda: now_ms)
    due = [clock.is_due]
    clock.set(Offset(0, 0))
    for step_ms in (0, RENEWED_MS - 1, 1, -RENEWED_MS - 1):
        now_ms += step_ms
        due.append(clock.is_due)
    assert due == [True, False, False, True, True]
