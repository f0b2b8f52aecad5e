"""The account at any instant: position rows and the wallet as Bybit writes them. Pure in (seed, time, modes, trades).

Money is worked out in integers of 1e-8. The wallet starts again from the same balances every UTC midnight, when
everything is flat, so that it stays bounded for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from .instruments import DAY_MS, Category, Instrument
from .market import Market
from .noise import key_of, word
from .positions import ACTIVE, ONE, Holding, Leg, Positions, legs_of, price8, rounded, to_ticks, value8
from .rows import Row, money, short, size_text
from .trades import steps_of
from .wallet import START8, Coin, wallet_row

MARGINS = ("cross", "isolated")


class Modes(Struct, frozen=True):
    """How the account is set: margin `cross` or `isolated`, and which symbols are in hedge mode."""

    margin: str = "cross"
    hedged: frozenset[str] = frozenset({"XRPUSDT"})


class Valued(Struct, frozen=True):
    """An open leg at the mark price; money in units of 1e-8."""

    leg: Leg
    held: Holding
    value: int
    unrealised: int
    initial_margin: int
    maintenance_margin: int


def _maintenance_permille(instrument: Instrument) -> int:
    return 5 if instrument.base in ("BTC", "ETH") else 10


def valued(market: Market, leg: Leg, held: Holding, now_ms: int) -> Valued:
    """An open leg with its value at entry, its unrealised PnL at the mark price, and its margins.

    Initial margin is value / leverage, both margins include the estimated fee to close, as Bybit's do.
    """
    mark = price8(leg.instrument, market.mark(leg.instrument, now_ms))
    value = value8(leg.instrument, held.average, abs(held.size))
    unrealised = value8(leg.instrument, mark - held.average, held.size)
    parts = leg.leverage - 1 if held.size > 0 else leg.leverage + 1
    fee = rounded(value * 55 * parts, 100_000 * leg.leverage)
    maintenance = rounded(value * _maintenance_permille(leg.instrument), 1_000) + fee
    return Valued(leg, held, value, unrealised, rounded(value, leg.leverage) + fee, maintenance)


class Account:
    """The private side of the exchange, at instants in Unix milliseconds."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.positions = Positions(market)

    def open_legs(self, modes: Modes, now_ms: int) -> list[Valued]:
        """Every open leg, by symbol and index."""
        held = self.holdings(modes, now_ms).items()
        return [valued(self.market, leg, holding, now_ms) for leg, holding in held if holding.size]

    def open_rows(self, modes: Modes, now_ms: int) -> list[Row]:
        """The rows of all open positions, as position/list gives them for a settle coin."""
        return [self._open_row(one, modes, now_ms) for one in self.open_legs(modes, now_ms)]

    def symbol_rows(self, instrument: Instrument, modes: Modes, now_ms: int) -> list[Row]:
        """The rows of one symbol, flat ones included: one, or two in hedge mode, the last changed first."""
        hedged = instrument.category is Category.LINEAR and instrument.symbol in modes.hedged
        legs = legs_of(instrument.symbol, hedged=hedged) if instrument.category is Category.LINEAR else ()
        if not legs:
            return [self._never_held_row(instrument, index, now_ms) for index in ((1, 2) if hedged else (0,))]
        held = sorted(
            ((leg, self.positions.holding(leg, now_ms)) for leg in legs), key=lambda pair: -pair[1].changed_ms
        )
        return [self.leg_row(leg, holding, modes, now_ms) for leg, holding in held]

    def holdings(self, modes: Modes, now_ms: int) -> dict[Leg, Holding]:
        """Every leg that is ever held, flat ones included."""
        legs = (leg for symbol in sorted(ACTIVE) for leg in legs_of(symbol, hedged=symbol in modes.hedged))
        return {leg: self.positions.holding(leg, now_ms) for leg in legs}

    def leg_row(self, leg: Leg, held: Holding, modes: Modes, now_ms: int) -> Row:
        """The row of a leg that is held like this, valued now."""
        if not held.size:
            return self._flat_row(leg, held, now_ms)
        return self._open_row(valued(self.market, leg, held, now_ms), modes, now_ms)

    def trade(self, symbol: str, side: int, buys: bool, size: str, modes: Modes, now_ms: int) -> Leg:
        """Trades `size` of a symbol's leg (positionIdx `side`) now. Raises ValueError."""
        for leg in legs_of(symbol, hedged=symbol in modes.hedged):
            if leg.side == side:
                steps = steps_of(leg.instrument, size)
                self.positions.trade(leg, steps if buys else -steps, now_ms)
                return leg
        raise ValueError(f"no position {symbol} {side} is ever held: one of {', '.join(sorted(ACTIVE))}")

    def _base(self, instrument: Instrument) -> int:
        return key_of(self.market.seed, "sequence", instrument.category, instrument.symbol)

    def _row(
        self, instrument: Instrument, index: int, leverage: int, changed_ms: int, now_ms: int, trades: int = 0
    ) -> Row:
        """A flat row with what every row has in common.

        `seq` grows with the time of the last change and with each trade on demand, so that it never goes back, whatever
        the modes.
        """
        base = self._base(instrument)
        mark = self.market.mark(instrument, now_ms)
        return {
            "symbol": instrument.symbol,
            "leverage": str(leverage),
            "autoAddMargin": 0,
            "avgPrice": "0",
            "liqPrice": "",
            "riskLimitValue": "2000000" if instrument.base in ("BTC", "ETH") else "200000",
            "takeProfit": "",
            "positionValue": "",
            "isReduceOnly": False,
            "positionIMByMp": "0",
            "tpslMode": "Full",
            "riskId": 1 + base % 200,
            "trailingStop": "0",
            "unrealisedPnl": "",
            "markPrice": short(mark * instrument.tick_units, instrument.price_decimals),
            "adlRankIndicator": 0,
            "cumRealisedPnl": "0",
            "positionMM": "0",
            "positionMMByMp": "0",
            "createdTime": str(changed_ms),
            "positionIdx": index,
            "positionIM": "0",
            "seq": base % 10**9 + changed_ms + trades,
            "updatedTime": str(changed_ms),
            "side": "",
            "bustPrice": "",
            "breakEvenPrice": "",
            "positionBalance": "0",
            "leverageSysUpdatedTime": "",
            "curRealisedPnl": "0",
            "size": "0",
            "positionStatus": "Normal",
            "mmrSysUpdatedTime": "",
            "stopLoss": "",
            "tradeMode": 0,
            "sessionAvgPrice": "",
        }

    def _never_held_row(self, instrument: Instrument, index: int, now_ms: int) -> Row:
        changed_ms = instrument.launch_ms + word(self._base(instrument), index) % (30 * DAY_MS)
        row = self._row(instrument, index, 10, changed_ms, now_ms)
        return row | {"cumRealisedPnl": money(self._realised_before(instrument, index))}

    def _realised_before(self, instrument: Instrument, index: int) -> int:
        """Realised in days past: a constant, so that the sum since then stays bounded."""
        return word(self._base(instrument), 10 + index) % (200 * ONE) - 100 * ONE

    def _flat_row(self, leg: Leg, held: Holding, now_ms: int) -> Row:
        today = self.positions.realised_today(leg, now_ms)
        row = self._row(leg.instrument, leg.side, leg.leverage, held.changed_ms, now_ms, held.trades)
        return row | {
            "createdTime": str(held.opened_ms),
            "curRealisedPnl": money(held.realised),
            "cumRealisedPnl": money(self._realised_before(leg.instrument, leg.side) + today),
        }

    def _open_row(self, one: Valued, modes: Modes, now_ms: int) -> Row:
        leg, held, instrument = one.leg, one.held, one.leg.instrument
        liquidation, bust = self._liquidation(one, modes)
        sign = 1 if held.size > 0 else -1
        even = held.average + sign * rounded(held.average * 110, 100_000)
        return self._flat_row(leg, held, now_ms) | {
            "side": "Buy" if sign > 0 else "Sell",
            "size": size_text(instrument, abs(held.size)),
            "avgPrice": money(held.average),
            "positionValue": money(one.value),
            "unrealisedPnl": money(one.unrealised),
            "positionIM": money(one.initial_margin),
            "positionIMByMp": money(one.initial_margin),
            "positionMM": money(one.maintenance_margin),
            "positionMMByMp": money(one.maintenance_margin),
            "positionBalance": money(one.initial_margin) if modes.margin == "isolated" else "0",
            "liqPrice": liquidation,
            "bustPrice": bust,
            "breakEvenPrice": money(even),
            "takeProfit": _stop_text(instrument, held.take_profit),
            "stopLoss": _stop_text(instrument, held.stop_loss),
            "adlRankIndicator": 2,
        }

    def _liquidation(self, one: Valued, modes: Modes) -> tuple[str, str]:
        """Liquidation and bust price. In cross margin the wallet's cushion leaves longs without either."""
        instrument, average = one.leg.instrument, one.held.average
        sign = 1 if one.held.size > 0 else -1
        if modes.margin == "cross" and sign > 0:
            return "", ""
        room = average // one.leg.leverage
        bust = average - sign * room
        liquidation = bust + sign * (average * _maintenance_permille(instrument) // 1_000)
        texts = [_stop_text(instrument, to_ticks(instrument, price)) for price in (liquidation, bust)]
        return texts[0], texts[1]

    def wallet(self, modes: Modes, now_ms: int, coins: Iterable[str] = ()) -> Row:
        """The row of the unified account; `coins` limits the coins listed (none: all), never the totals."""
        legs = [leg for symbol in ACTIVE for leg in legs_of(symbol, hedged=symbol in modes.hedged)]
        opened = self.open_legs(modes, now_ms)
        states = [self._coin(coin, legs, opened, now_ms) for coin in START8]
        return wallet_row(states, coins, isolated=modes.margin == "isolated")

    def _coin(self, coin: str, legs: Iterable[Leg], opened: Iterable[Valued], now_ms: int) -> Coin:
        held = [one for one in opened if one.leg.instrument.settle == coin]
        own = (leg for leg in legs if leg.instrument.settle == coin)
        return Coin(
            coin,
            start=START8[coin],
            realised=sum(self.positions.realised_today(leg, now_ms) for leg in own),
            unrealised=sum(one.unrealised for one in held),
            initial_margin=sum(one.initial_margin for one in held),
            maintenance_margin=sum(one.maintenance_margin for one in held),
            price=self.market.index_price(coin, now_ms),
        )


def _stop_text(instrument: Instrument, ticks: int | None) -> str:
    return "" if ticks is None else short(ticks * instrument.tick_units, instrument.price_decimals)
