"""Subscriptions: whatever is wanted, refused, lost or late, what is subscribed comes to be what is wanted."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.bybit.subscriptions import Request, Subscriptions

ACK_S, RETRY_S, RENEW_S = 5.0, 60.0, 1.0
BATCH = 4
ARGS = [f"tickers.{letter}USDT" for letter in "ABCDEFGHIJ"]
BAD = {ARGS[2], ARGS[7]}


class Exchange:
    """What the exchange holds, and how it answers."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad
        self.subscribed: set[str] = set()

    def answer(self, request: Request) -> tuple[bool, str]:
        if request.op == "unsubscribe":
            self.subscribed.difference_update(request.args)
            return True, ""
        if doubled := self.subscribed.intersection(request.args):
            return False, f"error:already subscribed,topic:{min(doubled)}"
        if bad := self.bad.intersection(request.args):
            return False, f"error:handler not found,topic:{min(bad)}"
        self.subscribed.update(request.args)
        return True, ""


def subscriptions() -> Subscriptions:
    return Subscriptions(batch=BATCH, ack_s=ACK_S, retry_s=RETRY_S, renew_s=RENEW_S)


def settled(subs: Subscriptions, exchange: Exchange, now: float) -> int:
    """Let the exchange answer everything that is asked at `now`; how many requests that took."""
    count = 0
    while (request := subs.next_request(now)) is not None:
        count += 1
        assert count < 200, "it never ends"
        accepted, why = exchange.answer(request)
        subs.answered(request.op, request.number, accepted=accepted, why=why, now=now)
    return count


def test_batches() -> None:
    """What is wanted is asked for in requests of the size allowed, one at a time."""
    subs, exchange = subscriptions(), Exchange(set())
    subs.want(ARGS)
    first = subs.next_request(0.0)
    assert first == Request("1", "subscribe", tuple(ARGS[:BATCH]))
    assert subs.next_request(0.0) is None
    assert subs.answered("subscribe", "1", accepted=True, why="", now=0.0) == tuple(ARGS[:BATCH])
    assert settled(subs, exchange, 0.0) == 2
    assert subs.subscribed == set(ARGS)


def test_a_bad_one_costs_only_itself() -> None:
    """A batch that is refused for one argument is subscribed to without it, which is tried again after a pause."""
    subs, exchange = subscriptions(), Exchange(set(BAD))
    subs.want(ARGS)
    settled(subs, exchange, 0.0)
    assert subs.subscribed == exchange.subscribed == set(ARGS) - BAD
    assert subs.refused == BAD
    assert subs.next_request(RETRY_S - 0.1) is None
    exchange.bad.clear()
    settled(subs, exchange, RETRY_S)
    assert subs.subscribed == exchange.subscribed == set(ARGS)
    assert not subs.refused


def test_an_answer_of_another_request_changes_nothing() -> None:
    """Answers are matched by number and operation; one without a number is of the one under way."""
    subs = subscriptions()
    subs.want(ARGS[:1])
    assert subs.next_request(0.0) is not None
    assert subs.answered("subscribe", "7", accepted=True, why="", now=0.0) == ()
    assert subs.answered("unsubscribe", "", accepted=True, why="", now=0.0) == ()
    assert not subs.subscribed
    assert subs.answered("subscribe", "", accepted=True, why="", now=0.0) == (ARGS[0],)
    assert subs.answered("subscribe", "1", accepted=True, why="", now=0.0) == ()


def test_renewal_leaves_first() -> None:
    """What is renewed is left at once and joined again after its pause; until then its pushes are leftovers."""
    subs, exchange = subscriptions(), Exchange(set())
    subs.want(ARGS[:2])
    settled(subs, exchange, 0.0)
    assert subs.expects(ARGS[0])
    subs.renew(ARGS[0], 0.0)
    assert not subs.expects(ARGS[0])
    assert subs.subscribed == {ARGS[1]}
    settled(subs, exchange, 0.0)
    assert exchange.subscribed == {ARGS[1]}
    settled(subs, exchange, RENEW_S)
    assert subs.subscribed == exchange.subscribed == set(ARGS[:2])


def test_renewal_of_what_is_being_joined() -> None:
    """An argument that is renewed while its subscription is under way is not taken for subscribed by that answer."""
    subs = subscriptions()
    subs.want(ARGS[:1])
    assert subs.next_request(0.0) is not None
    assert subs.expects(ARGS[0])
    subs.renew(ARGS[0], 0.0)
    assert not subs.expects(ARGS[0])
    assert subs.answered("subscribe", "1", accepted=True, why="", now=0.0) == ()
    assert not subs.subscribed


def test_deaf() -> None:
    """A connection is deaf after three requests in a row without an answer; a new one is not."""
    subs = subscriptions()
    subs.want(ARGS)
    for turn in range(3):
        assert not subs.is_deaf
        assert subs.next_request(turn * ACK_S) is not None
        subs.give_up(turn * ACK_S + ACK_S)
    assert subs.is_deaf
    subs.restart()
    assert not subs.is_deaf


def test_a_lost_answer_costs_little() -> None:
    """Where the connection answers the leaving, what got no answer is tried again at once; the third time, later."""
    subs, now = subscriptions(), 0.0
    subs.want([ARGS[0]])
    for pause_s in (RENEW_S, RENEW_S, RETRY_S):
        request = subs.next_request(now)
        assert request is not None
        assert (request.op, request.args) == ("subscribe", (ARGS[0],))
        now += ACK_S
        subs.give_up(now)
        leaving = subs.next_request(now)
        assert leaving is not None
        assert leaving.op == "unsubscribe"
        subs.answered(leaving.op, leaving.number, accepted=True, why="", now=now)
        assert subs.next_request(now + pause_s - 0.1) is None
        now += pause_s
    assert not subs.is_deaf
    again = subs.next_request(now)
    assert again is not None
    assert subs.answered(again.op, again.number, accepted=True, why="", now=now) == (ARGS[0],)


want = st.tuples(st.just("want"), st.sets(st.sampled_from(ARGS)))
renew = st.tuples(st.just("renew"), st.sampled_from(ARGS))
turns = st.tuples(st.sampled_from(["answer", "lose the request", "lose the answer", "late", "restart"]), st.none())


class Story:
    """Subscriptions, the exchange and what lies between them, one event after the other."""

    def __init__(self) -> None:
        self.subs, self.exchange, self.now = subscriptions(), Exchange(set(BAD)), 0.0
        self.given_up: Request | None = None

    def tell(self, what: str, value: Any) -> None:
        """One event."""
        self.now += 0.1
        if what == "want":
            self.subs.want(value)
        elif what == "renew":
            self.subs.renew(value, self.now)
        elif what == "restart":
            self.exchange.subscribed.clear()
            self.subs.restart()
            self.given_up = None
        elif what == "late" and self.given_up is not None:
            self.subs.answered(self.given_up.op, self.given_up.number, accepted=True, why="", now=self.now)
        elif (request := self.subs.next_request(self.now)) is not None:
            self.request(what, request)

    def request(self, what: str, request: Request) -> None:
        """A request and what becomes of it."""
        assert 0 < len(request.args) <= BATCH
        assert len(set(request.args)) == len(request.args)
        assert request.op == "unsubscribe" or self.subs.wanted.keys() >= set(request.args)
        accepted, why = (False, "") if what == "lose the request" else self.exchange.answer(request)
        if what.startswith("lose"):
            self.given_up = request
            self.now += ACK_S
            self.subs.give_up(self.now)
        else:
            self.subs.answered(request.op, request.number, accepted=accepted, why=why, now=self.now)

    def settle(self) -> None:
        """Let the exchange answer everything, also after every pause: what a lost answer did may show only then."""
        for _ in range(4):
            self.now += RETRY_S
            self.subs.give_up(self.now)
            settled(self.subs, self.exchange, self.now)


@given(steps=st.lists(st.one_of(want, renew, turns, turns, turns), max_size=40))
def test_whatever_happens_it_settles(steps: list[tuple[str, Any]]) -> None:
    """After any story of wishes, answers, losses and reconnects, exactly what is wanted and known is subscribed."""
    story = Story()
    for what, value in steps:
        story.tell(what, value)
        assert story.subs.subscribed <= story.exchange.subscribed
    story.settle()
    assert story.subs.subscribed == story.exchange.subscribed == story.subs.wanted.keys() - BAD
    assert story.subs.refused == story.subs.wanted.keys() & BAD
