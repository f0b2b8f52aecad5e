"""Breakers and budget: no schedule exceeds a limit, no cause silences more than it should, nothing is ever stuck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bybit.breaker import ACCOUNT, ADDRESS, BAN_S, CREDENTIALS_S, LAST_PAUSE_S, PROBE_LOOK_S, TOLERATED, Breakers
from server.bybit.budget import (
    ACCOUNT_CALLS,
    ADDRESS_CALLS,
    ADDRESS_PERIOD_S,
    RESERVE,
    Budget,
    Window,
    reset_wait_s,
)
from server.errors import (
    AddressBanned,
    BadAnswer,
    CallRefused,
    CredentialsRefused,
    ExchangeBusy,
    ExchangeError,
    ExchangeTimeout,
    RateExceeded,
)

ENDPOINTS = ("tickers", "position", "wallet", "kline")
PROBE_S = 10.0


def breakers(jitter: float = 1.0) -> Breakers:
    """Breakers of four endpoints, without chance."""
    return Breakers(ENDPOINTS, account_endpoints=("position", "wallet"), probe_s=PROBE_S, jitter=lambda: jitter)


def admitted(guard: Breakers, now: float) -> set[str]:
    """The endpoints that may be called; asking makes probes."""
    passed = set()
    for endpoint in ENDPOINTS:
        try:
            guard.admit(endpoint, now)
        except ExchangeError:
            continue
        passed.add(endpoint)
    return passed


def test_ban_silences_everything_and_one_probe_ends_it() -> None:
    """After a 403 nothing is called for ten minutes, then one call only, whose success opens all."""
    guard = breakers()
    guard.failed("tickers", AddressBanned("banned"), 0.0, 0.0)
    assert admitted(guard, 1.0) == admitted(guard, BAN_S - 0.001) == set()
    assert admitted(guard, BAN_S) == {"tickers"}
    assert admitted(guard, BAN_S + 1) == set()
    guard.succeeded("tickers", BAN_S)
    assert admitted(guard, BAN_S + 1) == set(ENDPOINTS)


def test_ten_minutes_of_ban_cost_one_call() -> None:
    """Whoever asks ten times a second for an hour of bans makes one call in each."""
    guard, calls = breakers(), 0
    for tick in range(36_000):
        now = tick / 10
        for endpoint in admitted(guard, now):
            calls += 1
            guard.failed(endpoint, AddressBanned("banned"), now, now)
    assert (
        calls == 1 + 3 + 5
    )  # the first round finds all open but the first answer comes at once; then one in ten minutes


def test_refused_credentials_leave_the_market_alone() -> None:
    """The account is tried once a minute, market data goes on."""
    guard = breakers()
    guard.failed("wallet", CredentialsRefused("no"), 0.0, 0.0)
    assert admitted(guard, 1.0) == {"tickers", "kline"}
    assert admitted(guard, CREDENTIALS_S) == {"tickers", "kline", "position"}
    assert admitted(guard, CREDENTIALS_S + 1) == {"tickers", "kline"}


def test_credentials_refused_for_market_data() -> None:
    """Market data is asked for without a key: who is refused one there knows nothing of the account."""
    guard = breakers()
    guard.failed("kline", CredentialsRefused("no"), 0.0, 0.0)
    assert admitted(guard, 1.0) == {"tickers", "position", "wallet"}


def test_answer_from_before_the_silence_proves_nothing() -> None:
    """A call that was under way when the key was refused does not make it good again."""
    guard = breakers()
    guard.failed("position", CredentialsRefused("no"), 5.0, 4.0)
    guard.succeeded("wallet", 4.5)
    assert admitted(guard, 6.0) == {"tickers", "kline"}
    guard.succeeded("wallet", 5.5)
    assert admitted(guard, 6.0) == {"tickers", "kline", "wallet"}


def test_rate_limit_waits_for_the_reset_it_names() -> None:
    """10006 silences its endpoint until the reset, and no other."""
    guard = breakers()
    guard.failed("position", RateExceeded("slow down", retry_after_s=7.0), 0.0, 0.0)
    assert admitted(guard, 6.9) == {"tickers", "wallet", "kline"}
    assert "position" in admitted(guard, 7.0)


@pytest.mark.parametrize("error", [ExchangeTimeout("t"), ExchangeBusy("b"), BadAnswer("x")])
def test_transient_failures_pause_after_the_third(error: ExchangeError) -> None:
    """Two accidents pass, the third in a row pauses the endpoint; a success in between starts the count anew."""
    guard = breakers()
    for now in (1.0, 2.0):
        for _ in range(TOLERATED - 1):
            guard.failed("tickers", error, now, now)
        assert "tickers" in admitted(guard, now)
        guard.succeeded("tickers", now + 0.5)
    for _ in range(TOLERATED):
        guard.failed("tickers", error, 3.0, 3.0)
    assert admitted(guard, 3.1) == {"position", "wallet", "kline"}
    assert "tickers" in admitted(guard, 3.0 + LAST_PAUSE_S)


@pytest.mark.parametrize(
    ("cause", "silent_s"), [(RateExceeded("r", retry_after_s=2.0), 2.0), (AddressBanned("b"), BAN_S)]
)
def test_a_probe_that_fails_by_accident_is_followed_by_another(cause: ExchangeError, silent_s: float) -> None:
    """A 503 says nothing of a limit or a ban: the next probe goes in a moment, and its answer opens all."""
    guard = breakers()
    guard.failed("position", cause, 0.0, 0.0)
    guard.admit("position", silent_s)
    guard.failed("position", ExchangeBusy("b"), silent_s + 0.1, silent_s)
    with pytest.raises(type(cause)):
        guard.admit("position", silent_s + 0.1)
    guard.admit("position", silent_s + 0.1 + PROBE_LOOK_S)
    guard.succeeded("position", silent_s + 0.1 + PROBE_LOOK_S)
    assert admitted(guard, silent_s + 0.5) == set(ENDPOINTS)


def test_answer_to_a_later_question_ends_a_pause() -> None:
    """Calls that hang run out one after the other: whatever was asked after them and answered shows that it is over."""
    guard = breakers()
    for asked_at in (1.0, 1.5, 2.0):
        guard.failed("tickers", ExchangeTimeout("t"), asked_at + 2.0, asked_at)
    assert "tickers" not in admitted(guard, 4.1)
    guard.succeeded("tickers", 1.9)
    assert "tickers" not in admitted(guard, 4.1)
    guard.succeeded("tickers", 3.0)
    assert "tickers" in admitted(guard, 4.1)


def test_late_failures_of_what_is_over() -> None:
    """Calls that hung in a trouble and run out after its end do not pause what answers again."""
    guard = breakers()
    guard.succeeded("tickers", 3.0)
    for asked_at in (1.0, 1.5, 2.0, 2.5):
        guard.failed("tickers", ExchangeTimeout("t"), asked_at + 2.0, asked_at)
    assert "tickers" in admitted(guard, 4.6)
    for asked_at in (3.0, 3.1, 3.2):
        guard.failed("tickers", ExchangeTimeout("t"), asked_at + 2.0, asked_at)
    assert "tickers" not in admitted(guard, 5.3)


def test_refusal_of_one_question_is_an_answer() -> None:
    """An unknown retCode closes what its endpoint had open: somebody answered."""
    guard = breakers()
    for _ in range(TOLERATED):
        guard.failed("kline", ExchangeTimeout("t"), 0.0, 0.0)
    guard.failed("kline", CallRefused("no"), 1.0, 1.0)
    assert admitted(guard, 1.0) == set(ENDPOINTS)


def test_refusal_says_why_and_when() -> None:
    """The refusal is the error that opened the breaker, with the time that is left."""
    guard = breakers()
    guard.failed("wallet", CredentialsRefused("the key is unknown"), 100.0, 100.0)
    with pytest.raises(CredentialsRefused, match="the key is unknown") as caught:
        guard.admit("wallet", 110.0)
    assert caught.value.retry_after_s == pytest.approx(CREDENTIALS_S - 10)
    assert guard.describe(110.0)[ACCOUNT] == {"state": "open", "reason": "credentials_refused", "retry_after_s": 50.0}
    assert guard.describe(170.0)[ACCOUNT]["state"] == "half-open"
    assert guard.describe(110.0)[ADDRESS] == {"state": "closed"}


errors = st.sampled_from(
    [
        AddressBanned("a"),
        CredentialsRefused("c"),
        RateExceeded("r"),
        ExchangeTimeout("t"),
        BadAnswer("b"),
        CallRefused("o"),
    ]
)
steps = st.lists(
    st.tuples(st.sampled_from(ENDPOINTS), st.floats(0, 700), st.none() | errors | st.just("lost")), max_size=60
)


@given(steps)
def test_breakers_are_never_stuck(history: list[tuple[str, float, ExchangeError | str | None]]) -> None:
    """Whatever happened, and whichever probes never reported, every endpoint is admitted again in time."""
    guard, now = breakers(), 0.0
    for endpoint, passed_s, outcome in history:
        now += passed_s
        if endpoint not in admitted_one(guard, endpoint, now) or outcome == "lost":
            continue
        if isinstance(outcome, ExchangeError):
            guard.failed(endpoint, outcome, now, now)
        else:
            guard.succeeded(endpoint, now)
    for endpoint in ENDPOINTS:
        now += BAN_S + PROBE_S
        assert admitted_one(guard, endpoint, now)


def admitted_one(guard: Breakers, endpoint: str, now: float) -> set[str]:
    """The endpoint if it is admitted."""
    try:
        guard.admit(endpoint, now)
    except ExchangeError:
        return set()
    return {endpoint}


@given(
    calls=st.integers(1, 20),
    period_s=st.floats(0.1, 10),
    gaps=st.lists(st.floats(0, 3), max_size=120),
)
def test_no_schedule_exceeds_a_window(calls: int, period_s: float, gaps: list[float]) -> None:
    """However calls are asked for, no period holds more than its limit, and waiting as told is always enough."""
    window, now, taken = Window(calls, period_s), 0.0, []
    for gap in gaps:
        now += gap
        if (wait_s := window.wait_s(now)) > 0:
            now += wait_s + 1e-9
            assert window.wait_s(now) == 0
        window.take(now)
        taken.append(now)
    for first in taken:
        assert sum(first <= moment < first + period_s - 1e-6 for moment in taken) <= calls


@given(st.lists(st.tuples(st.sampled_from(ENDPOINTS), st.floats(0, 0.05)), max_size=300), st.sampled_from([1, 2, 4]))
def test_budget_keeps_its_share_and_reserve(history: list[tuple[str, float]], workers: int) -> None:
    """One process of several never takes more than its share of the address's and the account's limits."""
    budget, now = Budget(share=1 / workers), 0.0
    taken: list[tuple[str, float]] = []
    for endpoint, gap in history:
        now += gap
        if budget.wait_s(endpoint, now) == 0:
            budget.take(endpoint, now)
            taken.append((endpoint, now))
    for _, first in taken:
        window = [name for name, moment in taken if first <= moment < first + ADDRESS_PERIOD_S]
        assert len(window) <= ADDRESS_CALLS * (1 - RESERVE) / workers
        second = [name for name, moment in taken if first <= moment < first + 1 and name == "wallet"]
        assert len(second) <= ACCOUNT_CALLS["wallet"] * (1 - RESERVE) / workers


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ("10", 8),
        ("20", 16),
        ("1", 1),
        ("0", 40),
        ("-5", 40),
        ("abc", 40),
        ("", 40),
        ("999999", 40),
        ("9" * 50, 40),
        ("١", 40),
    ],
)
def test_budget_learns_believable_limits(limit: str, allowed: int) -> None:
    """The account's limit is taken from the answer's header where that can be believed."""
    budget = Budget()
    budget.learn("wallet", {"X-Bapi-Limit": limit})
    budget.learn("tickers", {"X-Bapi-Limit": "1"})
    assert budget.left(0.0)["wallet"] == allowed
    assert budget.left(0.0)["position"] == 40


@pytest.mark.parametrize(
    ("reset_ms", "wait_s"),
    [
        ("11500", 1.5),
        ("10000", None),
        ("9000", None),
        ("70000", 60.0),
        ("70001", None),
        ("soon", None),
        ("", None),
        ("9" * 40, None),
        ("-1", None),
    ],
)
def test_reset_is_believed_within_bounds(reset_ms: str, wait_s: float | None) -> None:
    """A reset in the past, absurdly far away, or of garbage is none."""
    assert reset_wait_s({"X-Bapi-Limit-Reset-Timestamp": reset_ms}, 10_000) == wait_s
    assert reset_wait_s({}, 10_000) is None


def test_budget_is_at_ease_while_most_is_left() -> None:
    """Calls are to spare as long as more than half of the address's share is unused."""
    budget = Budget()
    ease = []
    for _ in range(3):
        ease.append(budget.is_at_ease(0.0))
        for _ in range(160):
            budget.take("kline", 0.0)
    assert [*ease, budget.is_at_ease(100.0)] == [True, True, False, True]
