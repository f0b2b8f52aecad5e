"""Visitors: what an address may take, whatever it does and however many there are."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api import visitors as module
from server.api.visitors import Visitors, visitor_of
from server.errors import RateLimited, TooManyConnections
from server.settings import Settings

AWAY, ELSEWHERE = "203.0.113.9", "198.51.100.7"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def visitors_of(clock: Clock, **sections: dict[str, Any]) -> Visitors:
    """Under settings whose sections have these keys."""
    plain = Settings()
    changed = {name: msgspec.structs.replace(getattr(plain, name), **keys) for name, keys in sections.items()}
    return Visitors(msgspec.structs.replace(plain, **changed), clock=clock)


@pytest.mark.parametrize(
    ("address", "visitor"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("127.8.8.8", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
        ("unix:", None),
    ],
)
def test_by_what_an_address_counts(address: str, visitor: str | None) -> None:
    """IPv4 by itself however it is written, IPv6 by its network, this machine by nothing."""
    assert visitor_of(address) == visitor


@given(
    pauses_s=st.lists(st.floats(0, 3), min_size=1, max_size=120),
    per_s=st.floats(0.5, 50),
    burst=st.integers(1, 20),
)
def test_the_bucket(pauses_s: list[float], per_s: float, burst: int) -> None:
    """In no span of time are there more than the burst and what the rate brings; who waits as told is let in."""
    clock = Clock()
    visitors = visitors_of(clock, server={"requests_per_s": per_s, "requests_burst": burst})
    taken: list[float] = []
    for pause_s in pauses_s:
        clock.now += pause_s
        try:
            visitors.take_request(AWAY)
        except RateLimited as error:
            clock.now += (error.retry_after_s or 0.0) + 1e-6
            visitors.take_request(AWAY)
        taken.append(clock.now)
    for start, first in enumerate(taken):
        for number, last in enumerate(taken[start:], 1):
            assert number <= burst + (last - first) * per_s + 1e-3


def test_a_burst_and_one_more() -> None:
    """As many as the burst pass at once, one more does not, and others are not touched by that."""
    visitors = visitors_of(Clock(), server={"requests_per_s": 2.0, "requests_burst": 3})
    for _ in range(3):
        visitors.take_request(AWAY)
    with pytest.raises(RateLimited) as raised:
        visitors.take_request(AWAY)
    assert raised.value.retry_after_s == pytest.approx(0.5)
    assert raised.value.quota == ("requests", 3, 1.5)
    visitors.take_request(ELSEWHERE)
    for _ in range(1000):
        visitors.take_request("127.0.0.1")


@pytest.mark.parametrize("failures", [2, 3, 4])
def test_wrong_tokens(failures: int) -> None:
    """One under the limit is looked at, at the limit none, until the window has passed since the first of them."""
    clock = Clock()
    visitors = visitors_of(clock, auth={"max_failures": 3, "failures_window_s": 60.0})
    for number in range(failures):
        clock.now += 1 if number else 0
        visitors.count_failure(AWAY)
    if failures < 3:
        visitors.check_failures(AWAY)
        return
    with pytest.raises(RateLimited) as raised:
        visitors.check_failures(AWAY)
    assert raised.value.retry_after_s == pytest.approx(61 - failures)
    visitors.check_failures(ELSEWHERE)
    clock.now += 61 - failures
    visitors.check_failures(AWAY)
    visitors.count_failure(AWAY)
    visitors.check_failures(AWAY)


def test_sockets_come_and_go() -> None:
    """One more than allowed is refused, and admitted again after another has gone."""
    visitors = visitors_of(Clock(), websocket={"max_per_address": 2, "max_per_token": 1})
    first, second = visitors.take_socket(AWAY), visitors.take_socket(AWAY)
    assert first is second is not None
    with pytest.raises(TooManyConnections):
        visitors.take_socket(AWAY)
    visitors.give_socket(second)
    visitors.take_socket(AWAY)
    visitors.take_socket(ELSEWHERE)
    with pytest.raises(TooManyConnections):
        visitors.take_socket(AWAY)
    for _ in range(3):
        visitors.give_socket(visitors.take_socket("127.0.0.1"))
    visitors.take_token(b"one")
    visitors.take_token(b"two")
    with pytest.raises(TooManyConnections):
        visitors.take_token(b"one")
    visitors.give_token(b"one")
    visitors.take_token(b"one")
    for _ in range(3):
        visitors.take_token(b"")


def test_nought_is_no_limit() -> None:
    """Everything may be switched off."""
    visitors = visitors_of(
        Clock(),
        server={"requests_per_s": 0.0},
        websocket={"max_per_address": 0, "max_per_token": 0},
        auth={"max_failures": 0},
    )
    for _ in range(500):
        visitors.take_request(AWAY)
        visitors.count_failure(AWAY)
        visitors.check_failures(AWAY)
        visitors.take_token(b"one")
    for _ in range(3):
        visitors.take_socket(AWAY)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses come, so many are remembered; who has sockets or wrong tokens is not forgotten first."""
    monkeypatch.setattr(module, "MOST", 100)
    clock = Clock()
    visitors = visitors_of(clock, websocket={"max_per_address": 1}, auth={"max_failures": 1})
    visitors.take_socket(AWAY)
    visitors.take_request("198.51.100.1")
    clock.now += 30
    visitors.count_failure(ELSEWHERE)
    for number in range(90):
        visitors.take_request(f"10.0.0.{number}")
    clock.now += 30
    for number in range(90):
        visitors.take_request(f"10.0.1.{number}")
    assert len(visitors) <= 100
    with pytest.raises(RateLimited):
        visitors.check_failures(ELSEWHERE)
    for number in range(10_000):
        visitors.take_request(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
        assert len(visitors) <= 101
    with pytest.raises(TooManyConnections):
        visitors.take_socket(AWAY)
