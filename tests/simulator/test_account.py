"""Positions and wallet: they live, agree with the price and with each other, and depend on time alone."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.simulator.account import Account, Modes
from server.simulator.instruments import CATALOGUE, DAY_MS, Category, Instrument
from server.simulator.market import Market
from server.simulator.positions import ACTIVE, legs_of
from server.simulator.rows import ticker_row
from server.simulator.wallet import UNKNOWN_IN_ISOLATED

from .conftest import NOW_MS

MARKET = Market(7)
ACCOUNT = Account(MARKET)
LINEAR = CATALOGUE[Category.LINEAR]
CROSS, ISOLATED = Modes(), Modes("isolated")
CENT8 = Decimal("0.00000001")
instants = st.integers(1_700_000_000_000, 1_900_000_000_000)


def open_rows(modes: Modes, at_ms: int) -> list[dict[str, Any]]:
    return ACCOUNT.open_rows(modes, at_ms)


def symbol_rows(instrument: Instrument, modes: Modes, at_ms: int) -> list[dict[str, Any]]:
    return ACCOUNT.symbol_rows(instrument, modes, at_ms)


def wallet_at(modes: Modes, at_ms: int) -> dict[str, Any]:
    return ACCOUNT.wallet(modes, at_ms)


def rows_over(symbol: str, start_ms: int, length_ms: int, step_ms: int) -> list[dict[str, Any]]:
    """The one-way row of a symbol at many instants."""
    return [symbol_rows(LINEAR[symbol], CROSS, start_ms + at)[0] for at in range(0, length_ms, step_ms)]


def signed(row: dict[str, Any]) -> Decimal:
    return Decimal(row["size"]) * (-1 if row["side"] == "Sell" else 1)


def test_positions_live_through_their_cycle() -> None:
    """In an hour a position opens, grows, shrinks, flips and closes, and its stops come and go."""
    seen = set()
    for earlier, later in pairwise(rows_over("BTCUSDT", NOW_MS, 3_600_000, 2_000)):
        before, after = signed(earlier), signed(later)
        if before != after:
            kind = "open" if not before else "close" if not after else "flip" if before * after < 0 else ""
            seen.add(kind or ("grow" if abs(after) > abs(before) else "shrink"))
        elif earlier["takeProfit"] != later["takeProfit"]:
            seen.add("stops")
    assert seen == {"open", "grow", "shrink", "flip", "close", "stops"}


def test_sequence_grows_with_each_change_and_only_then() -> None:
    """seq and updatedTime grow strictly when a symbol changes, stay when it does not, and never go back."""
    kept = ("seq", "updatedTime")
    own = ("side", "size", "avgPrice", "takeProfit", "stopLoss", "curRealisedPnl", "cumRealisedPnl")
    changes = 0
    for earlier, later in pairwise(rows_over("ETHUSDT", NOW_MS, 3_600_000, 3_000)):
        if [earlier[name] for name in own] == [later[name] for name in own]:
            assert [earlier[name] for name in kept] == [later[name] for name in kept]
        else:
            changes += 1
            assert later["seq"] > earlier["seq"]
            assert int(later["updatedTime"]) > int(earlier["updatedTime"])
    assert changes >= 20


def test_a_change_of_size_realises_what_it_says() -> None:
    """Average price moves only when a position grows; shrinking realises profit and loss at the traded price."""
    for earlier, later in pairwise(rows_over("SOLUSDT", NOW_MS, 7_200_000, 1_000)):
        before, after = signed(earlier), signed(later)
        if before * after <= 0 or before == after:
            continue
        price = Decimal(MARKET.last(LINEAR["SOLUSDT"], int(later["updatedTime"]))) * Decimal("0.010")
        average, traded = Decimal(earlier["avgPrice"]), after - before
        realised = Decimal(later["curRealisedPnl"]) - Decimal(earlier["curRealisedPnl"])
        fee = abs(traded) * price * Decimal("0.0002")
        if abs(after) > abs(before):
            assert abs(Decimal(later["avgPrice"]) * after - (average * before + price * traded)) < abs(after) * CENT8
            assert abs(realised + fee) <= 2 * CENT8
        else:
            assert later["avgPrice"] == earlier["avgPrice"]
            assert abs(realised - ((average - price) * traded - fee)) <= 2 * CENT8
        assert later["createdTime"] == earlier["createdTime"]


@given(now_ms=instants)
@settings(max_examples=25, deadline=None)
def test_profit_agrees_with_the_mark_price(now_ms: int) -> None:
    """unrealisedPnl is (mark - entry) * size, positionValue entry * size, the mark price that of the ticker."""
    for row in open_rows(CROSS, now_ms):
        average, mark, size = Decimal(row["avgPrice"]), Decimal(row["markPrice"]), signed(row)
        ticker = ticker_row(LINEAR[row["symbol"]], MARKET.ticker(LINEAR[row["symbol"]], now_ms))
        assert Decimal(str(ticker["markPrice"])) == mark
        assert abs(Decimal(row["unrealisedPnl"]) - (mark - average) * size) <= CENT8
        assert abs(Decimal(row["positionValue"]) - average * abs(size)) <= CENT8
        assert Decimal(row["positionIM"]) >= Decimal(row["positionValue"]) / Decimal(row["leverage"]) - CENT8
        assert int(row["createdTime"]) <= int(row["updatedTime"]) <= now_ms


@given(now_ms=instants)
@settings(max_examples=25, deadline=None)
def test_the_wallet_is_the_sum_of_its_parts(now_ms: int) -> None:
    """Coins sum up the open rows, and the totals in USD sum up the coins."""
    wallet, rows = wallet_at(CROSS, now_ms), open_rows(CROSS, now_ms)
    for coin in wallet["coin"]:
        own = [row for row in rows if LINEAR[row["symbol"]].settle == coin["coin"]]
        assert Decimal(coin["unrealisedPnl"]) == sum(Decimal(row["unrealisedPnl"]) for row in own)
        assert Decimal(coin["totalPositionIM"]) == sum(Decimal(row["positionIM"]) for row in own)
        assert Decimal(coin["totalPositionMM"]) == sum(Decimal(row["positionMM"]) for row in own)
        assert Decimal(coin["equity"]) == Decimal(coin["walletBalance"]) + Decimal(coin["unrealisedPnl"])
    equity = Decimal(wallet["totalEquity"])
    assert equity == sum(Decimal(coin["usdValue"]) for coin in wallet["coin"])
    assert equity == Decimal(wallet["totalWalletBalance"]) + Decimal(wallet["totalPerpUPL"])
    assert Decimal(wallet["totalMarginBalance"]) == equity
    assert Decimal(wallet["totalAvailableBalance"]) == equity - Decimal(wallet["totalInitialMargin"]) > 0
    assert [coin["coin"] for coin in wallet["coin"]] == ["USDT", "USDC", "BTC"]


@given(now_ms=instants)
@settings(max_examples=25, deadline=None)
def test_wallet_balance_is_start_plus_realised(now_ms: int) -> None:
    """Since midnight the wallet balance moved by exactly what the positions' cumRealisedPnl moved by."""
    midnight_ms = now_ms // DAY_MS * DAY_MS

    def realised(at_ms: int, coin: str) -> Decimal:
        own = [LINEAR[symbol] for symbol in ACTIVE if LINEAR[symbol].settle == coin]
        rows = [row for one in own for row in symbol_rows(one, CROSS, at_ms)]
        return sum((Decimal(row["cumRealisedPnl"]) for row in rows), Decimal(0))

    now, before = wallet_at(CROSS, now_ms), wallet_at(CROSS, midnight_ms)
    for coin, first in zip(now["coin"], before["coin"], strict=True):
        moved = Decimal(coin["walletBalance"]) - Decimal(first["walletBalance"])
        assert moved == realised(now_ms, coin["coin"]) - realised(midnight_ms, coin["coin"])
    assert [coin["walletBalance"] for coin in before["coin"]] == ["50000", "5000", "0.25"]


def test_everything_is_flat_at_midnight() -> None:
    """No position is carried over midnight, in either mode."""
    midnight_ms = NOW_MS // DAY_MS * DAY_MS
    for modes in (CROSS, Modes("cross", frozenset(ACTIVE))):
        assert open_rows(modes, midnight_ms - 1) == open_rows(modes, midnight_ms) == []


def test_most_symbols_are_flat_and_some_are_open() -> None:
    """At any instant several positions are open, among them now and then each active symbol, and no other."""
    seen: set[str] = set()
    for at_ms in range(NOW_MS, NOW_MS + 3_600_000, 60_000):
        symbols = {str(row["symbol"]) for row in open_rows(CROSS, at_ms)}
        assert 2 <= len(symbols) <= len(ACTIVE)
        seen |= symbols
    assert seen == set(ACTIVE)


def test_flat_row() -> None:
    """A flat symbol's row has Bybit's empty strings."""
    row = symbol_rows(LINEAR["LTCUSDT"], CROSS, NOW_MS)[0]
    flat = {"side": "", "size": "0", "avgPrice": "0", "positionValue": "", "liqPrice": "", "unrealisedPnl": ""}
    assert {name: row[name] for name in flat} == flat
    assert Decimal(row["markPrice"]) > 0
    assert symbol_rows(CATALOGUE[Category.INVERSE]["BTCUSD"], CROSS, NOW_MS)[0]["size"] == "0"


def test_hedge_mode_gives_two_rows() -> None:
    """A hedged symbol has rows 1 (long) and 2 (short), the live one in either place, each with its own seq."""
    orders, open_counts, newest = set(), set(), [0, 0]
    for at_ms in range(NOW_MS, NOW_MS + 7_200_000, 20_000):
        rows: list[dict[str, Any]] = symbol_rows(LINEAR["XRPUSDT"], CROSS, at_ms)
        orders.add(tuple(row["positionIdx"] for row in rows))
        live = [row for row in rows if row["side"]]
        open_counts.add(len(live))
        assert all(row["side"] == ("Buy" if row["positionIdx"] == 1 else "Sell") for row in live)
        sequences = [row["seq"] for row in sorted(rows, key=lambda row: row["positionIdx"])]
        assert all(later >= earlier for earlier, later in zip(newest, sequences, strict=True))
        newest = sequences
    assert orders == {(1, 2), (2, 1)}
    assert open_counts == {0, 1, 2}


def test_hedge_mode_of_a_symbol_that_is_never_held() -> None:
    """A hedged symbol without positions has two flat rows."""
    rows = symbol_rows(LINEAR["LTCUSDT"], Modes("cross", frozenset({"LTCUSDT"})), NOW_MS)
    assert [(row["positionIdx"], row["size"]) for row in rows] == [(1, "0"), (2, "0")]


def test_isolated_margin() -> None:
    """In isolated margin the account's margin fields are empty, the coins' are not, and open rows have a liqPrice."""
    wallet = wallet_at(ISOLATED, NOW_MS)
    cross = wallet_at(CROSS, NOW_MS)
    assert {wallet[name] for name in UNKNOWN_IN_ISOLATED} == {""}
    assert "" not in {cross[name] for name in UNKNOWN_IN_ISOLATED}
    assert wallet["totalEquity"] == cross["totalEquity"]
    assert wallet["coin"] == cross["coin"]
    rows = open_rows(ISOLATED, NOW_MS)
    assert rows
    for row in rows:
        gap = Decimal(row["liqPrice"]) - Decimal(row["avgPrice"])
        assert gap < 0 if row["side"] == "Buy" else gap > 0


def test_optional_fields_are_sometimes_set() -> None:
    """Over an hour takeProfit, stopLoss and liqPrice are seen both set and empty, stops on the right sides."""
    seen: dict[str, set[bool]] = {"takeProfit": set(), "stopLoss": set(), "liqPrice": set()}
    for row in rows_over("BTCUSDT", NOW_MS, 3_600_000, 20_000):
        for name, kinds in seen.items():
            kinds.add(row[name] != "")
        if row["takeProfit"]:
            sign = 1 if row["side"] == "Buy" else -1
            average = Decimal(row["avgPrice"])
            assert (Decimal(row["takeProfit"]) - average) * sign > 0 > (Decimal(row["stopLoss"]) - average) * sign
    assert all(kinds == {True, False} for kinds in seen.values())


def test_accounts_agree_whoever_was_asked_first() -> None:
    """Two accounts of one seed asked at different instants before give the same rows and wallet."""
    other = Account(Market(7))
    other.wallet(ISOLATED, NOW_MS + 12_345_678)
    assert other.open_rows(CROSS, NOW_MS) == open_rows(CROSS, NOW_MS) != []
    assert other.wallet(CROSS, NOW_MS) == wallet_at(CROSS, NOW_MS)


def test_cycles_divide_the_day() -> None:
    """Every leg's cycle fits a whole number of times into a day, on which its being flat at midnight rests."""
    for symbol in ACTIVE:
        for leg in legs_of(symbol, hedged=False) + legs_of(symbol, hedged=True):
            assert DAY_MS % leg.cycle_ms == 0
