"""Bybit's words to ours: the wire rows of V5 answers, checked and translated into models.

Whatever does not have the documented shape raises BadAnswer; nothing is guessed and nothing made up. Field names and
meanings: Bybit V5, "Get Tickers", "Get Kline", "Get Position Info", "Get Wallet Balance", "Get Instruments Info",
"Get API Key Information".
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import TypeVar

from msgspec import UNSET, Raw
from msgspec.structs import replace

from ..errors import BadAnswer
from ..models import (
    CandleRow,
    Coin,
    Instrument,
    Instruments,
    KeyInfo,
    Position,
    PositionRow,
    PositionRows,
    Ticker,
    Wallet,
)
from . import wire
from .wire import decode

T = TypeVar("T")

# Thirty digits hold every amount that exists; more is an attack or a bug, not money.
plain_decimal = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?").fullmatch
plain_integer = re.compile(r"[0-9]{1,14}").fullmatch  # milliseconds until the year 5138
plain_nanoseconds = re.compile(r"[0-9]{7,19}").fullmatch


def decimal(text: str, name: str) -> str | None:
    """A plain finite decimal as it stands; "" is None. Raises BadAnswer for anything else (NaN, 1E-8, 1_000)."""
    if text == "":
        return None
    if plain_decimal(text) is None:
        raise BadAnswer(f"the exchange's {name} is not a plain decimal number")
    return text


def _required(text: str, name: str) -> str:
    if (value := decimal(text, name)) is None:
        raise BadAnswer(f"the exchange sent no {name}")
    return value


def _price_or_none(text: str, name: str) -> str | None:
    """Like `decimal`, with zero as None: Bybit says 'not set' as "" over REST and as "0" or "0.00" over streams."""
    value = decimal(text, name)
    return None if value is None or not value.strip("-0.") else value


def _milliseconds(text: str, name: str) -> int | None:
    if text == "":
        return None
    if plain_integer(text) is None:
        raise BadAnswer(f"the exchange's {name} is not a time in milliseconds")
    return int(text)


def ticker_of(row: wire.Ticker) -> Ticker:
    """A row of Get Tickers, or of the stream of the same fields. Raises BadAnswer for what is no number or time."""
    return Ticker(
        last_price=_required(row.lastPrice, "lastPrice"),
        mark_price=decimal(row.markPrice, "markPrice"),
        index_price=decimal(row.indexPrice, "indexPrice"),
        bid_price=decimal(row.bid1Price, "bid1Price"),
        bid_size=decimal(row.bid1Size, "bid1Size"),
        ask_price=decimal(row.ask1Price, "ask1Price"),
        ask_size=decimal(row.ask1Size, "ask1Size"),
        high_price_24h=decimal(row.highPrice24h, "highPrice24h"),
        low_price_24h=decimal(row.lowPrice24h, "lowPrice24h"),
        change_24h=decimal(row.price24hPcnt, "price24hPcnt"),
        volume_24h=decimal(row.volume24h, "volume24h"),
        turnover_24h=decimal(row.turnover24h, "turnover24h"),
        open_interest=decimal(row.openInterest, "openInterest"),
        funding_rate=decimal(row.fundingRate, "fundingRate"),
        next_funding_time_ms=_milliseconds(row.nextFundingTime, "nextFundingTime"),
    )


TICKER_FIELDS = dict(zip(wire.Ticker.__struct_fields__[1:], Ticker.__struct_fields__, strict=True))
"""Our name of each field of a ticker, by Bybit's; they come in the same order."""
_READ = {"lastPrice": _required, "nextFundingTime": _milliseconds}


def ticker_with(ticker: Ticker, delta: wire.TickerDelta) -> Ticker:
    """`ticker` with what `delta` changes. Raises BadAnswer as above."""
    changes: dict[str, object] = {}
    for name, ours in TICKER_FIELDS.items():
        if (value := getattr(delta, name)) is not UNSET:
            changes[ours] = _READ.get(name, decimal)(value, name)
    return replace(ticker, **changes)


def parse_ticker(raw: bytes | Raw, symbol: str) -> Ticker:
    """The ticker of `symbol` from a tickers answer; BadAnswer where it is not in there exactly once."""
    rows = [row for row in decode(raw, wire.Tickers).rows if row.symbol == symbol]
    if len(rows) != 1:
        raise BadAnswer(f"the exchange answered {len(rows)} tickers for {symbol}, not one")
    return ticker_of(rows[0])


def parse_tickers(raw: bytes | Raw) -> dict[str, Ticker]:
    """Every ticker of a listing by symbol; without those that cannot be believed, which are asked for by themselves."""
    rows = decode(raw, wire.Tickers).rows
    tickers: dict[str, Ticker] = {}
    for row in rows:
        try:
            tickers[row.symbol] = ticker_of(row)
        except BadAnswer:
            continue
    if len({row.symbol for row in rows}) != len(rows) or not tickers:
        raise BadAnswer("the exchange's tickers are none, or the same one twice")
    return tickers


def position_row_of(row: wire.Position) -> PositionRow:
    """A row of Get Position Info. Raises BadAnswer where its words contradict each other."""
    size = _required(row.size, "size")
    is_open = bool(size.strip("-0."))
    side = "" if row.side == "None" else row.side  # flat rows of accounts before the second unified account
    if side not in ("Buy", "Sell", "") or (is_open and not side) or size.startswith("-"):
        raise BadAnswer("the exchange's side and size of a position contradict each other")
    if row.positionIdx not in (0, 1, 2):
        raise BadAnswer("the exchange's positionIdx is none of 0, 1, 2")
    position = Position(
        symbol=row.symbol,
        position_idx=row.positionIdx,
        side=side,
        size=size,
        entry_price=(_required if is_open else decimal)(row.avgPrice, "avgPrice"),
        mark_price=decimal(row.markPrice, "markPrice"),
        leverage=decimal(row.leverage, "leverage"),
        position_value=decimal(row.positionValue, "positionValue"),
        unrealised_pnl=decimal(row.unrealisedPnl, "unrealisedPnl"),
        realised_pnl=decimal(row.curRealisedPnl, "curRealisedPnl"),
        liquidation_price=_price_or_none(row.liqPrice, "liqPrice"),
        take_profit=_price_or_none(row.takeProfit, "takeProfit"),
        stop_loss=_price_or_none(row.stopLoss, "stopLoss"),
        updated_time_ms=_milliseconds(row.updatedTime, "updatedTime"),
    )
    return PositionRow(position=position, sequence=row.seq, is_open=is_open)


def distinct(rows: Sequence[T], key: Callable[[T], object], what: str) -> Sequence[T]:
    if len({key(row) for row in rows}) != len(rows):
        raise BadAnswer(f"the exchange sent the same {what} twice")
    return rows


def parse_position(raw: bytes | Raw, symbol: str) -> PositionRows:
    """Every row of `symbol`, flat ones included, by position index. A symbol's answer always has rows, even if flat."""
    rows = [position_row_of(row) for row in decode(raw, wire.Positions).rows]
    if not rows or any(row.position.symbol != symbol for row in rows):
        raise BadAnswer(f"the exchange's positions are not those of {symbol}")
    distinct(rows, lambda row: row.position.position_idx, "position")
    return tuple(sorted(rows, key=lambda row: row.position.position_idx))


def parse_position_page(raw: bytes | Raw) -> tuple[PositionRows, str]:
    """One page of a listing of open positions, and the cursor of the next ("" after the last)."""
    page = decode(raw, wire.Positions)
    return tuple(position_row_of(row) for row in page.rows), page.nextPageCursor


def join_positions(pages: Iterable[PositionRows]) -> PositionRows:
    """The pages of a listing as one, by symbol and index; a row that moved between pages keeps its newest version."""
    newest: dict[tuple[str, int], PositionRow] = {}
    for row in (row for page in pages for row in page):
        key = (row.position.symbol, row.position.position_idx)
        if key not in newest or row.sequence >= newest[key].sequence:
            newest[key] = row
    return tuple(newest[key] for key in sorted(newest))


def _isolated_available(row: wire.Coin) -> str | None:
    """walletBalance − totalPositionIM − totalOrderIM − locked − bonus; None if one of them is ""."""
    names = ("walletBalance", "totalPositionIM", "totalOrderIM", "locked", "bonus")
    values = [decimal(getattr(row, name), name) for name in names]
    if None in values:
        return None
    first, *rest = (Decimal(value) for value in values if value is not None)
    with localcontext(prec=80):
        return f"{first - sum(rest):f}"


def _coin(row: wire.Coin, *, isolated: bool) -> Coin:
    return Coin(
        coin=row.coin,
        equity=decimal(row.equity, "equity"),
        wallet_balance=decimal(row.walletBalance, "walletBalance"),
        available_balance=_isolated_available(row) if isolated else None,
        unrealised_pnl=decimal(row.unrealisedPnl, "unrealisedPnl"),
    )


def parse_wallet(raw: bytes | Raw) -> Wallet:
    """The unified account. In isolated margin ("" for the account's available balance) each coin has its own."""
    return wallet_of(decode(raw, wire.Wallet).rows)


def wallet_of(accounts: Sequence[wire.Account]) -> Wallet:
    """The one account among `accounts`. Raises BadAnswer where there is none or another, or no equity in it."""
    if len(accounts) != 1:
        raise BadAnswer(f"the exchange answered {len(accounts)} accounts, not one")
    account = accounts[0]
    available = decimal(account.totalAvailableBalance, "totalAvailableBalance")
    coins = distinct(account.coin, lambda row: row.coin, "coin")
    return Wallet(
        account_type=account.accountType,
        currency="USD",
        equity=_required(account.totalEquity, "totalEquity"),
        wallet_balance=_required(account.totalWalletBalance, "totalWalletBalance"),
        available_balance=available,
        unrealised_pnl=decimal(account.totalPerpUPL, "totalPerpUPL"),
        coins=tuple(_coin(row, isolated=available is None) for row in coins),
    )


def parse_kline(raw: bytes | Raw, symbol: str) -> tuple[CandleRow, ...]:
    """The candles of `symbol` oldest first, from Bybit's newest first.

    BadAnswer where they are another symbol's, where times do not step back or a number is none.
    """
    kline = decode(raw, wire.Kline)
    if kline.symbol != symbol:
        raise BadAnswer(f"the exchange's candles are not those of {symbol}")
    rows = kline.rows
    rows.reverse()
    for row in rows:
        for text in row:
            if plain_decimal(text) is None:
                raise BadAnswer("the exchange's candle holds something that is not a plain decimal number")
    times = [_milliseconds(row[0], "start") or 0 for row in rows]  # never "": that is no decimal
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise BadAnswer("the exchange's candles are not in the order of their times")
    return tuple(rows)


def _instrument(row: wire.Instrument) -> Instrument:
    return Instrument(
        symbol=row.symbol,
        status=row.status,
        base_coin=row.baseCoin,
        quote_coin=row.quoteCoin,
        settle_coin=row.settleCoin,
        tick_size=decimal(row.priceFilter.tickSize, "tickSize"),
        quantity_step=decimal(row.lotSizeFilter.qtyStep or row.lotSizeFilter.basePrecision, "qtyStep"),
        min_quantity=decimal(row.lotSizeFilter.minOrderQty, "minOrderQty"),
        max_leverage=decimal(row.leverageFilter.maxLeverage, "maxLeverage"),
    )


def parse_instrument_page(raw: bytes | Raw) -> tuple[Instruments, str]:
    """One page of the instrument list by symbol, and the cursor of the next ("" after the last).

    A row that cannot be believed is left out: it must not take every other symbol with it.
    """
    page = decode(raw, wire.InstrumentPage)
    instruments: Instruments = {}
    for raw_row in page.rows:
        try:
            row = decode(raw_row, wire.Instrument)
            instruments[row.symbol] = _instrument(row)
        except BadAnswer:
            continue
    if page.rows and not instruments:
        raise BadAnswer("the exchange's list of instruments has no row that can be believed")
    return instruments, page.nextPageCursor


def parse_server_time(raw: bytes | Raw) -> int:
    """The exchange's clock in milliseconds, from `/v5/market/time`."""
    nanoseconds = decode(raw, wire.Time).timeNano
    if plain_nanoseconds(nanoseconds) is None:
        raise BadAnswer("the exchange's timeNano is not a time in nanoseconds")
    return int(nanoseconds) // 1_000_000


def _expiry_ms(text: str) -> int | None:
    """An ISO 8601 time with its offset, in Unix ms; "" and years up to 1970, Bybit's ways to say never, are None."""
    if text == "":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadAnswer("the exchange's expiredAt is not a time") from None
    if moment.tzinfo is None:
        raise BadAnswer("the exchange's expiredAt does not say in which time zone it is")
    return None if moment.year <= 1970 else round(moment.timestamp() * 1000)


def parse_key(raw: bytes | Raw) -> KeyInfo:
    """What the key may do and until when, and nothing that tells whose it is. Only 1 in `readOnly` is read only."""
    key = decode(raw, wire.Key)
    permissions = {f"{group}:{name}" for group, names in key.permissions.items() for name in names}
    return KeyInfo(
        is_read_only=key.readOnly == 1,
        permissions=tuple(sorted(permissions)),
        expires_at_ms=_expiry_ms(key.expiredAt),
        is_address_bound=bool(key.ips) and "*" not in key.ips,
    )
