"""Parsing: what the exchange says comes out to the digit, and what it cannot mean does not come out at all."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.bybit import parsing
from server.errors import BadAnswer
from server.models import PositionRow

TICKER = {
    "symbol": "BTCUSDT", "lastPrice": "51444.40", "indexPrice": "51469.95", "markPrice": "51444.41",
    "prevPrice24h": "50147.50", "price24hPcnt": "0.025861", "highPrice24h": "51999.40", "lowPrice24h": "48381.60",
    "prevPrice1h": "50999.90", "openInterest": "225766.793", "openInterestValue": "11614437205.81",
    "turnover24h": "2352063794.0035", "volume24h": "47293.8870", "fundingRate": "-0.00046295",
    "nextFundingTime": "1707926400000", "predictedDeliveryPrice": "", "basisRate": "", "deliveryFeeRate": "",
    "deliveryTime": "0", "ask1Size": "491.691", "bid1Price": "51444.30", "ask1Price": "51444.50",
    "bid1Size": "55.841", "basis": "",
}  # fmt: skip
SPOT_TICKER = {
    "symbol": "BTCUSDT", "bid1Price": "20517.96", "bid1Size": "2", "ask1Price": "20527.77", "ask1Size": "1.862172",
    "lastPrice": "20533.13", "prevPrice24h": "20393.48", "price24hPcnt": "0.0068", "highPrice24h": "21128.12",
    "lowPrice24h": "20318.89", "turnover24h": "243765620.65899866", "volume24h": "11801.27771",
    "usdIndexPrice": "20784.12009279",
}  # fmt: skip
FUTURE_TICKER = {**TICKER, "nextFundingTime": "", "fundingRate": "", "deliveryTime": "2025-12-26T08:00:00Z"}

FLAT = {
    "symbol": "LTCUSDT", "leverage": "6", "autoAddMargin": 0, "avgPrice": "0", "liqPrice": "",
    "riskLimitValue": "200000", "takeProfit": "", "positionValue": "", "isReduceOnly": False, "tpslMode": "Full",
    "riskId": 71, "trailingStop": "0", "unrealisedPnl": "", "markPrice": "68", "adlRankIndicator": 0,
    "cumRealisedPnl": "-46.02652648", "positionMM": "0", "createdTime": "1677168085779", "positionIdx": 0,
    "positionIM": "0", "seq": 15470569116, "updatedTime": "1701294996731", "side": "", "bustPrice": "",
    "positionBalance": "0", "leverageSysUpdatedTime": "", "size": "0", "positionStatus": "Normal",
    "mmrSysUpdatedTime": "1698293363950", "stopLoss": "", "tradeMode": 0,
}  # fmt: skip
LONG = {
    **FLAT, "avgPrice": "64.59947917", "positionValue": "77.519375", "unrealisedPnl": "7.800625",
    "curRealisedPnl": "-0.04651163", "markPrice": "71.1", "seq": 15411084098, "updatedTime": "1699948800031",
    "side": "Buy", "size": "1.2", "takeProfit": "80.5", "stopLoss": "60", "liqPrice": "54.1",
}  # fmt: skip
SHORT = {**LONG, "positionIdx": 2, "side": "Sell", "size": "3340"}
INVERSE = {
    **FLAT, "symbol": "BTCUSD", "side": "Sell", "size": "300", "avgPrice": "27464.50441675", "leverage": "10",
    "positionValue": "0.01092319", "markPrice": "28224.50", "takeProfit": "0.00", "stopLoss": "0.00", "liqPrice": "",
    "unrealisedPnl": "-0.00029413", "curRealisedPnl": "0.00013123", "seq": 5723621632,
    "updatedTime": "1697673600012",
}  # fmt: skip

COIN = {
    "availableToBorrow": "", "bonus": "0", "accruedInterest": "0", "availableToWithdraw": "", "totalOrderIM": "0",
    "equity": "3967.36309513", "totalPositionMM": "42.31621371", "usdValue": "3966.90684837",
    "unrealisedPnl": "-303.7584", "collateralSwitch": True, "spotHedgingQty": "0", "borrowAmount": "0",
    "totalPositionIM": "2466.37380399", "walletBalance": "4271.12149513", "cumRealisedPnl": "821.53233534",
    "locked": "0", "marginCollateral": True, "coin": "USDT",
}  # fmt: skip
CROSS = {
    "totalEquity": "92255.96988644", "accountIMRate": "0.0006", "totalMarginBalance": "90042.2788482",
    "totalInitialMargin": "54.3100333", "accountType": "UNIFIED", "totalAvailableBalance": "89987.9688149",
    "accountMMRate": "0", "totalPerpUPL": "-21.66812467", "totalWalletBalance": "90060.46626531",
    "accountLTV": "0", "totalMaintenanceMargin": "7.38826721", "coin": [COIN, {**COIN, "coin": "BTC"}],
}  # fmt: skip
ISOLATED = {**CROSS, "totalAvailableBalance": "", "totalMarginBalance": "", "accountIMRate": "", "coin": [COIN]}

KLINE = [
    ["1706637600000", "43376.1", "43474.1", "43264.8", "43352.8", "1575.305", "68345898.1407"],
    ["1706634000000", "43488", "43579.5", "43286.8", "43376.1", "3199.431", "138878389.2519"],
    ["1706630400000", "43350.7", "43492.5", "43204.5", "43488", "1341.261", "58117391.4117"],
]

LINEAR = {
    "symbol": "BTCUSDT", "symbolId": 5, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC",
    "quoteCoin": "USDT", "launchTime": "1585526400000", "deliveryTime": "0", "deliveryFeeRate": "",
    "priceScale": "2", "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
    "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
    "lotSizeFilter": {"maxOrderQty": "1190.000", "minOrderQty": "0.002", "qtyStep": "0.001"},
    "unifiedMarginTrade": True, "fundingInterval": 480, "settleCoin": "USDT", "copyTrading": "both",
    "isPreListing": False, "preListingInfo": None, "riskParameters": {"priceLimitRatioX": "0.01"},
}  # fmt: skip
SPOT = {
    "symbol": "ETHUSDT", "baseCoin": "ETH", "quoteCoin": "USDT", "innovation": "0", "status": "Trading",
    "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.0000001", "minOrderQty": "0.000011"},
    "priceFilter": {"tickSize": "0.1"},
}  # fmt: skip
OPTION = {
    "symbol": "BTC-27MAR26-70000-P-USDT", "status": "PreLaunch", "baseCoin": "BTC", "quoteCoin": "USDT",
    "settleCoin": "USDT", "optionsType": "Put", "priceFilter": {"minPrice": "5", "tickSize": "5"},
    "lotSizeFilter": {"maxOrderQty": "500", "minOrderQty": "0.01", "qtyStep": "0.02"},
}  # fmt: skip

KEY = {
    "id": "13770661", "note": "canary-note", "apiKey": "canary-key", "readOnly": 1, "secret": "canary-secret",
    "permissions": {
        "ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"], "Wallet": [], "Options": ["OptionsTrade"],
        "Derivatives": ["DerivativesTrade"], "CopyTrading": [], "BlockTrade": [], "Exchange": ["ExchangeHistory"],
        "NFT": [], "Affiliate": [],
    },
    "ips": ["192.0.2.77"], "type": 1, "deadlineDay": 66, "expiredAt": "2026-02-01T08:30:00Z",
    "createdAt": "2025-10-16T02:42:18Z", "unified": 0, "uta": 1, "userID": 24617703, "inviterID": 0,
    "vipLevel": "No VIP", "mktMakerLevel": "0", "affiliateID": 0, "rsaPublicKey": "canary-rsa", "isMaster": True,
    "parentUid": "0", "kycLevel": "LEVEL_DEFAULT", "kycRegion": "canary-region",
}  # fmt: skip
EXPIRES_MS = 1_769_934_600_000
OF_THE_USER = ("canary", "13770661", "24617703", "192.0.2.77")

Document = dict[str, Any]
Parse = Callable[[bytes], Any]


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def listing(*rows: object, cursor: str = "") -> bytes:
    return encoded({"category": "linear", "nextPageCursor": cursor, "list": rows})


PARSERS: dict[str, tuple[Parse, Document]] = {
    "ticker": (lambda raw: parsing.parse_ticker(raw, "BTCUSDT"), {"category": "linear", "list": [TICKER]}),
    "position": (lambda raw: parsing.parse_position(raw, "LTCUSDT"), {"list": [{**FLAT, "positionIdx": 1}, SHORT]}),
    "positions": (parsing.parse_position_page, {"nextPageCursor": "a%2Cb", "list": [LONG, INVERSE]}),
    "wallet": (parsing.parse_wallet, {"list": [CROSS]}),
    "isolated": (parsing.parse_wallet, {"list": [ISOLATED]}),
    "kline": (lambda raw: parsing.parse_kline(raw, "BTCUSDT"), {"symbol": "BTCUSDT", "list": KLINE}),
    "instruments": (parsing.parse_instrument_page, {"nextPageCursor": "c", "list": [LINEAR, SPOT, OPTION]}),
    "time": (parsing.parse_server_time, {"timeSecond": "1688639403", "timeNano": "1688639403423213947"}),
    "key": (parsing.parse_key, KEY),
}
each_parser = pytest.mark.parametrize("kind", PARSERS)

NO_DECIMALS = (
    "NaN", "-NaN", "sNaN", "Infinity", "-Infinity", "inf", "1E-8", "1e5", "1_000", "1,000", "0x10", "+1", "--1", "-",
    ".", ".5", "5.", "1.2.3", " ", "\n", " 1", "1 ", "1\n", "\n1", "1\x00", "١", "１", "½", "null", "9" * 31,
    "0." + "1" * 31,
)  # fmt: skip
JUNK: tuple[object, ...] = (
    *NO_DECIMALS,
    None,
    True,
    False,
    0,
    -1,
    7,
    1.5,
    2**63,
    10**400,
    [],
    {},
    [[]],
    "",
    "0",
    "0.00",
    "-0",
    "-1",
)

plain = re.compile(r"-?[0-9]+(\.[0-9]+)?").fullmatch
decimals = st.from_regex(r"\A-?[0-9]{1,30}(\.[0-9]{1,30})?\Z", alphabet="-.0123456789")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(JUNK),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.just("list") | st.text(), inner, max_size=4),
    max_leaves=12,
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: what holds it, and its key there."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


@st.composite
def broken(draw: st.DrawFn, document: Document) -> Document:
    """`document` with up to three of its places replaced, dropped or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(places(document)) or [({"": 0}, "")]))
        match draw(st.sampled_from(("replace", "drop", "double", "swap"))):
            case "replace":
                holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK) | anything))
            case "drop":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case "swap" if isinstance(holder, list):
                holder.reverse()
    return document


NAMES = {"symbol", "side", "coin", "account_type", "status", "base_coin", "quote_coin", "settle_coin", "permissions"}


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with the name of the innermost field it stands in."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, key)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from leaves(item, name)
    else:
        yield name, node


def numbers(kind: str, value: Any) -> Iterator[Any]:
    """Every number that a parser gave: decimal strings and integers. Not what is computed: that has its own test."""
    data = msgspec.to_builtins(value)
    if kind in ("positions", "instruments"):
        data, cursor = data
        assert isinstance(cursor, str)
    if kind in ("wallet", "isolated"):
        assert data.pop("currency") == "USD"
        available = [coin.pop("available_balance") for coin in data["coins"]]
        assert data["available_balance"] is None or set(available) <= {None}
    if kind == "key":
        data.pop("expires_at_ms")
    for name, leaf in leaves(data):
        if name not in NAMES and leaf is not None and not isinstance(leaf, bool):
            yield leaf


@each_parser
@given(raw=st.binary() | anything.map(encoded))
def test_any_bytes_are_a_value_or_a_bad_answer(kind: str, raw: bytes) -> None:
    """Whatever comes, a parser raises BadAnswer or nothing."""
    parse, _ = PARSERS[kind]
    with suppress(BadAnswer):
        parse(raw)


@each_parser
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nothing_is_made_up(kind: str, data: st.DataObject) -> None:
    """Of a damaged answer, either nothing comes out, or only what stands in it."""
    parse, document = PARSERS[kind]
    damaged = data.draw(broken(document))
    try:
        value = parse(encoded(damaged))
    except BadAnswer:
        return
    given = {leaf for _, leaf in leaves(damaged) if isinstance(leaf, (int, str))}
    for number in numbers(kind, value):
        if isinstance(number, str):
            assert plain(number)
            assert number in given
        else:
            texts = {str(leaf)[: -6 if kind == "time" else None] for leaf in given}
            assert number in given or str(number) in texts


@each_parser
def test_documented_answers_parse(kind: str) -> None:
    """The documents that the other tests damage are whole."""
    parse, document = PARSERS[kind]
    assert parse(encoded(document))


@given(text=decimals)
def test_plain_decimals_stay_to_the_digit(text: str) -> None:
    """What is a plain decimal comes out as it stands."""
    assert parsing.decimal(text, "price") == text


@given(text=st.text() | st.decimals().map(str) | st.floats().map(repr) | st.integers().map(str))
def test_decimals_are_plain_or_refused(text: str) -> None:
    """Nothing but a plain finite decimal passes, and the empty string is None."""
    if not text or (plain(text) and max(map(len, text.lstrip("-").split("."))) <= 30):
        assert parsing.decimal(text, "price") == (text or None)
    else:
        with pytest.raises(BadAnswer):
            parsing.decimal(text, "price")


@pytest.mark.parametrize("text", NO_DECIMALS)
@pytest.mark.parametrize(
    "answer",
    [
        lambda text: parsing.parse_ticker(listing({**TICKER, "bid1Size": text}), "BTCUSDT"),
        lambda text: parsing.parse_position(listing({**LONG, "stopLoss": text}), "LTCUSDT"),
        lambda text: parsing.parse_wallet(listing({**CROSS, "totalEquity": text})),
        lambda text: parsing.parse_wallet(listing({**ISOLATED, "coin": [{**COIN, "bonus": text}]})),
        lambda text: parsing.parse_kline(listing([*KLINE[0][:6], text]), "BTCUSDT"),
        lambda text: parsing.parse_instrument_page(listing({**LINEAR, "priceFilter": {"tickSize": text}})),
    ],
    ids=["ticker", "position", "wallet", "isolated", "kline", "instrument"],
)
def test_what_is_no_decimal_is_refused_everywhere(answer: Callable[[str], Any], text: str) -> None:
    """Not a number, infinite, in powers of ten, with separators or in other digits: a bad answer everywhere."""
    with pytest.raises(BadAnswer):
        answer(text)


def test_null_where_a_string_belongs_is_refused() -> None:
    """JSON's null is not Bybit's way to say nothing."""
    with pytest.raises(BadAnswer, match="Expected `str`, got `null`"):
        parsing.parse_ticker(listing({**TICKER, "markPrice": None}), "BTCUSDT")


@pytest.mark.parametrize("text", ["-1", "1.5", "1e12", "soon", " 1", "123456789012345"])
def test_times_are_milliseconds_or_refused(text: str) -> None:
    """A time is a whole number of milliseconds within the calendar's reach."""
    with pytest.raises(BadAnswer, match="time"):
        parsing.parse_position(listing({**FLAT, "updatedTime": text}), "LTCUSDT")
    with pytest.raises(BadAnswer):
        parsing.parse_kline(listing([text, *KLINE[0][1:]]), "BTCUSDT")


def test_ticker_of_a_perpetual() -> None:
    """Every field of a linear ticker comes out under the gateway's name."""
    assert msgspec.to_builtins(parsing.parse_ticker(listing(TICKER), "BTCUSDT")) == {
        "last_price": "51444.40",
        "mark_price": "51444.41",
        "index_price": "51469.95",
        "bid_price": "51444.30",
        "bid_size": "55.841",
        "ask_price": "51444.50",
        "ask_size": "491.691",
        "high_price_24h": "51999.40",
        "low_price_24h": "48381.60",
        "change_24h": "0.025861",
        "volume_24h": "47293.8870",
        "turnover_24h": "2352063794.0035",
        "open_interest": "225766.793",
        "funding_rate": "-0.00046295",
        "next_funding_time_ms": 1707926400000,
    }


@pytest.mark.parametrize("row", [SPOT_TICKER, FUTURE_TICKER], ids=["spot", "future"])
def test_ticker_without_funding(row: Document) -> None:
    """What a category does not have is None, whether it is left out or empty."""
    ticker = parsing.parse_ticker(listing(row), "BTCUSDT")
    assert (ticker.last_price, ticker.funding_rate, ticker.next_funding_time_ms) == (row["lastPrice"], None, None)


@pytest.mark.parametrize("rows", [(), ({**TICKER, "symbol": "ETHUSDT"},), (TICKER, TICKER)], ids=len)
def test_ticker_must_be_there_once(rows: tuple[Document, ...]) -> None:
    """No ticker, only a foreign one, or one twice: a bad answer."""
    with pytest.raises(BadAnswer, match="BTCUSDT"):
        parsing.parse_ticker(listing(*rows), "BTCUSDT")


def test_ticker_among_others() -> None:
    """From a listing, the ticker of the symbol asked for."""
    others = ({**TICKER, "symbol": "BTCUSD", "lastPrice": "1"}, TICKER, {**TICKER, "symbol": "ETHUSDT"})
    assert parsing.parse_ticker(listing(*others), "BTCUSDT").last_price == "51444.40"


def test_ticker_needs_a_price() -> None:
    """A ticker without a last price is none."""
    with pytest.raises(BadAnswer, match="lastPrice"):
        parsing.parse_ticker(listing({**TICKER, "lastPrice": ""}), "BTCUSDT")


def test_open_position() -> None:
    """Every field of an open position comes out under the gateway's name."""
    (row,) = parsing.parse_position(listing(LONG), "LTCUSDT")
    assert (row.is_open, row.sequence) == (True, 15411084098)
    assert msgspec.to_builtins(row.position) == {
        "symbol": "LTCUSDT",
        "position_idx": 0,
        "side": "Buy",
        "size": "1.2",
        "entry_price": "64.59947917",
        "mark_price": "71.1",
        "leverage": "6",
        "position_value": "77.519375",
        "unrealised_pnl": "7.800625",
        "realised_pnl": "-0.04651163",
        "liquidation_price": "54.1",
        "take_profit": "80.5",
        "stop_loss": "60",
        "updated_time_ms": 1699948800031,
    }


@pytest.mark.parametrize("side", ["", "None"])
def test_flat_position(side: str) -> None:
    """A flat row is there but not open, on accounts that call its side None too."""
    (row,) = parsing.parse_position(listing({**FLAT, "side": side}), "LTCUSDT")
    assert (row.is_open, row.position.side, row.position.size, row.position.unrealised_pnl) == (False, "", "0", None)


@pytest.mark.parametrize("field", ["takeProfit", "stopLoss", "liqPrice"])
@pytest.mark.parametrize(("text", "price"), [("", None), ("0", None), ("0.00", None), ("-0", None), ("10.0", "10.0")])
def test_zero_is_no_price(field: str, text: str, price: str | None) -> None:
    """Stops and the liquidation price that are not set are None, said as nothing or as zero."""
    names = {"takeProfit": "take_profit", "stopLoss": "stop_loss", "liqPrice": "liquidation_price"}
    (row,) = parsing.parse_position(listing({**LONG, field: text}), "LTCUSDT")
    assert getattr(row.position, names[field]) == price


@pytest.mark.parametrize("order", [1, -1])
def test_hedge_rows_come_by_index(order: int) -> None:
    """Both sides of a hedged symbol, whichever the exchange lists first and whichever is live."""
    rows = [{**FLAT, "positionIdx": 1}, SHORT][::order]
    found = parsing.parse_position(listing(*rows), "LTCUSDT")
    assert [(row.position.position_idx, row.position.side, row.is_open) for row in found] == [
        (1, "", False),
        (2, "Sell", True),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        (),
        ({**LONG, "symbol": "BTCUSDT"},),
        (LONG, {**LONG, "symbol": "BTCUSDT", "positionIdx": 1}),
        (LONG, LONG),
        ({**LONG, "side": ""},),
        ({**LONG, "side": "None"},),
        ({**LONG, "side": "Long"},),
        ({**LONG, "size": "-1.2"},),
        ({**LONG, "size": ""},),
        ({**LONG, "avgPrice": ""},),
        ({**LONG, "positionIdx": 3},),
        ({**LONG, "positionIdx": -1},),
        ({**LONG, "positionIdx": "0"},),
        ({key: value for key, value in LONG.items() if key != "size"},),
    ],
)
def test_positions_that_contradict_themselves(rows: tuple[Document, ...]) -> None:
    """No rows, foreign ones, the same twice, a size without a side or a price, an unknown index: a bad answer."""
    with pytest.raises(BadAnswer):
        parsing.parse_position(listing(*rows), "LTCUSDT")


def test_position_page() -> None:
    """A page gives its rows in their order and the cursor as the exchange encoded it."""
    rows, cursor = parsing.parse_position_page(listing(LONG, INVERSE, cursor="BTCUSD%2C1%2C0"))
    assert [row.position.symbol for row in rows] == ["LTCUSDT", "BTCUSD"]
    assert cursor == "BTCUSD%2C1%2C0"
    assert rows[1].position.take_profit is rows[1].position.liquidation_price is None
    assert parsing.parse_position_page(listing()) == ((), "")


def rows_of(*versions: tuple[str, int, str]) -> tuple[PositionRow, ...]:
    """Rows by symbol, sequence and size."""
    rows = ({**LONG, "symbol": symbol, "seq": seq, "size": size} for symbol, seq, size in versions)
    return parsing.parse_position_page(listing(*rows))[0]


def test_joined_pages_keep_the_newest() -> None:
    """A row that moved between pages counts once, as its highest sequence has it, or its later page."""
    first = rows_of(("ETHUSDT", 5, "5"), ("BTCUSDT", 9, "9"), ("XRPUSDT", 1, "1"))
    second = rows_of(("BTCUSDT", 8, "8"), ("ETHUSDT", 6, "6"), ("XRPUSDT", 1, "2"))
    joined = parsing.join_positions((first, second))
    assert [(row.position.symbol, row.position.size) for row in joined] == [
        ("BTCUSDT", "9"),
        ("ETHUSDT", "6"),
        ("XRPUSDT", "2"),
    ]
    assert parsing.join_positions(()) == ()


def test_wallet_in_cross_margin() -> None:
    """The account has the available balance, and its coins have none of their own."""
    wallet = parsing.parse_wallet(listing(CROSS))
    coin = {"equity": "3967.36309513", "wallet_balance": "4271.12149513", "unrealised_pnl": "-303.7584"}
    assert msgspec.to_builtins(wallet) == {
        "account_type": "UNIFIED",
        "currency": "USD",
        "equity": "92255.96988644",
        "wallet_balance": "90060.46626531",
        "available_balance": "89987.9688149",
        "unrealised_pnl": "-21.66812467",
        "coins": tuple({"coin": name, "available_balance": None, **coin} for name in ("USDT", "BTC")),
    }


def test_wallet_in_isolated_margin() -> None:
    """The account has no available balance; each coin's is computed."""
    wallet = parsing.parse_wallet(listing(ISOLATED))
    assert (wallet.available_balance, wallet.coins[0].available_balance) == (None, "1804.74769114")


PARTS = ("walletBalance", "totalPositionIM", "totalOrderIM", "locked", "bonus")


def isolated(**parts: str) -> str | None:
    """The available balance of a coin in isolated margin."""
    return parsing.parse_wallet(listing({**ISOLATED, "coin": [{**COIN, **parts}]})).coins[0].available_balance


@given(parts=st.tuples(*[decimals] * 5))
def test_isolated_margin_is_exact(parts: tuple[str, ...]) -> None:
    """What is available is the exact difference, printed plainly, with every digit of sixty."""
    text = isolated(**dict(zip(PARTS, parts, strict=True)))
    first, *rest = map(Fraction, parts)
    assert text is not None
    assert plain(text)
    assert Fraction(text) == first - sum(rest)


@pytest.mark.parametrize(
    ("wallet_balance", "bonus", "expected"),
    [
        ("0.00000002", "0.00000001", "0.00000001"),
        ("5", "5.00", "0.00"),
        ("1", "2.5", "-1.5"),
        ("1" + "0" * 29, "0.1", "9" * 29 + ".9"),
    ],
)
def test_isolated_margin_is_printed_plainly(wallet_balance: str, bonus: str, expected: str) -> None:
    """Small and large amounts never come in powers of ten."""
    assert isolated(walletBalance=wallet_balance, bonus=bonus, totalPositionIM="0", totalOrderIM="0") == expected


@pytest.mark.parametrize("part", PARTS)
def test_isolated_margin_with_a_part_missing(part: str) -> None:
    """Without one of its parts the difference is not known."""
    assert isolated(**{part: ""}) is None


@pytest.mark.parametrize(
    "accounts",
    [
        (),
        (CROSS, CROSS),
        ({**CROSS, "coin": [COIN, COIN]},),
        ({**CROSS, "coin": None},),
        ({**CROSS, "coin": [{}]},),
        ({**CROSS, "totalEquity": ""},),
        ({**CROSS, "totalWalletBalance": ""},),
    ],
    ids=["none", "two", "coin twice", "no coins", "nameless coin", "no equity", "no wallet balance"],
)
def test_wallets_that_are_none(accounts: tuple[Document, ...]) -> None:
    """Not exactly one account, a coin twice, or no list of coins: a bad answer."""
    with pytest.raises(BadAnswer):
        parsing.parse_wallet(listing(*accounts))


def test_wallet_without_coins_or_totals() -> None:
    """An empty account is an account; what has no value there is None."""
    wallet = parsing.parse_wallet(listing({**CROSS, "coin": [], "totalPerpUPL": ""}))
    assert (wallet.coins, wallet.unrealised_pnl) == ((), None)


def kline(*rows: list[str], symbol: str = "BTCUSDT") -> bytes:
    return encoded({"category": "linear", "symbol": symbol, "list": rows})


def test_kline_turns_round() -> None:
    """Newest first on the wire is oldest first here, to the digit."""
    assert parsing.parse_kline(kline(*KLINE), "BTCUSDT") == tuple(map(tuple, reversed(KLINE)))
    assert parsing.parse_kline(kline(), "BTCUSDT") == ()


@pytest.mark.parametrize(
    "rows",
    [KLINE[::-1], [KLINE[0], KLINE[0]], [KLINE[0], KLINE[2], KLINE[1]], [KLINE[0][:6]], [[*KLINE[0], "1"]], [[""] * 7]],
    ids=["oldest first", "twice", "mixed", "six values", "eight values", "empty"],
)
def test_klines_out_of_order_or_shape(rows: list[list[str]]) -> None:
    """Times that do not step back, or rows of another width: a bad answer."""
    with pytest.raises(BadAnswer):
        parsing.parse_kline(kline(*rows), "BTCUSDT")


def test_kline_of_another_symbol() -> None:
    """Candles of a symbol that was not asked for are not believed."""
    with pytest.raises(BadAnswer, match="BTCUSDT"):
        parsing.parse_kline(kline(*KLINE, symbol="ETHUSDT"), "BTCUSDT")


def test_instrument_page() -> None:
    """Instruments of every category by symbol, with what a category has, and the cursor of the next page."""
    instruments, cursor = parsing.parse_instrument_page(listing(LINEAR, SPOT, OPTION, cursor="first%3DA%26last%3DB"))
    assert cursor == "first%3DA%26last%3DB"
    assert [tuple(msgspec.to_builtins(instrument).values()) for instrument in instruments.values()] == [
        ("BTCUSDT", "Trading", "BTC", "USDT", "USDT", "0.10", "0.001", "0.002", "100.00"),
        ("ETHUSDT", "Trading", "ETH", "USDT", None, "0.1", "0.000001", "0.000011", None),
        ("BTC-27MAR26-70000-P-USDT", "PreLaunch", "BTC", "USDT", "USDT", "5", "0.02", "0.01", None),
    ]
    assert list(instruments) == [instrument.symbol for instrument in instruments.values()]
    assert parsing.parse_instrument_page(listing()) == ({}, "")
    broken = {**SPOT, "priceFilter": {"tickSize": "1E-8"}}
    assert list(parsing.parse_instrument_page(listing(broken, LINEAR))[0]) == [LINEAR["symbol"]]


def test_server_time() -> None:
    """Nanoseconds to milliseconds."""
    assert parsing.parse_server_time(encoded(PARSERS["time"][1])) == 1688639403423


@pytest.mark.parametrize("nano", ["", "-1", "1.5", "9" * 20])
def test_server_time_that_is_none(nano: str) -> None:
    """A time that is not there is not the year 1970."""
    with pytest.raises(BadAnswer, match="timeNano"):
        parsing.parse_server_time(encoded({"timeSecond": "1688639403", "timeNano": nano}))


def test_key() -> None:
    """What the key may do and until when comes out, and nothing that tells whose it is."""
    info = parsing.parse_key(encoded(KEY))
    assert msgspec.to_builtins(info) == {
        "is_read_only": True,
        "permissions": (
            "ContractTrade:Order",
            "ContractTrade:Position",
            "Derivatives:DerivativesTrade",
            "Exchange:ExchangeHistory",
            "Options:OptionsTrade",
            "Spot:SpotTrade",
        ),
        "expires_at_ms": EXPIRES_MS,
        "is_address_bound": True,
    }
    assert not any(text in repr(info) for text in OF_THE_USER)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(document=broken(KEY))
def test_a_damaged_key_is_never_better_than_it_is(document: Document) -> None:
    """Of a damaged answer nothing comes out, or what stands in it: only the number 1 makes a key read only."""
    try:
        info = parsing.parse_key(encoded(document))
    except BadAnswer as error:
        detail = error.detail
    else:
        detail = ""
    assert not any(text in detail for text in OF_THE_USER)
    if detail:
        return
    assert type(document["readOnly"]) is int
    assert info.is_read_only == (document["readOnly"] == 1)
    assert set(info.permissions) == {f"{group}:{name}" for group, of in document["permissions"].items() for name in of}
    assert info.expires_at_ms in (None, EXPIRES_MS)
    assert info.expires_at_ms == EXPIRES_MS or document.get("expiredAt", "") == ""
    assert info.is_address_bound == (bool(document.get("ips")) and "*" not in document["ips"])


@pytest.mark.parametrize(
    ("read_only", "is_read_only"),
    [(1, True), (0, False), (2, False), (-1, False), (True, None), ("1", None), (1.0, None)],
)
def test_only_one_is_read_only(read_only: object, is_read_only: bool | None) -> None:
    """Any other number is a key that can write, and what is no whole number is a bad answer."""
    raw = encoded({**KEY, "readOnly": read_only})
    if is_read_only is None:
        with pytest.raises(BadAnswer, match="readOnly"):
            parsing.parse_key(raw)
    else:
        assert parsing.parse_key(raw).is_read_only is is_read_only


@pytest.mark.parametrize("field", ["readOnly", "permissions"])
def test_a_key_without_its_permissions_is_none(field: str) -> None:
    """What decides over the key has no default."""
    with pytest.raises(BadAnswer, match=field):
        parsing.parse_key(encoded({name: value for name, value in KEY.items() if name != field}))


@pytest.mark.parametrize(
    ("text", "expires_at_ms"),
    [
        ("2026-02-01T08:30:00Z", EXPIRES_MS),
        ("2026-02-01T08:30:00.000Z", EXPIRES_MS),
        ("2026-02-01T10:30:00+02:00", EXPIRES_MS),
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_expiry(text: str, expires_at_ms: int | None) -> None:
    """A time is one in Unix ms, and Bybit's ways to say never are None."""
    assert parsing.parse_key(encoded({**KEY, "expiredAt": text})).expires_at_ms == expires_at_ms


@pytest.mark.parametrize("text", ["soon", "2026-02-01T08:30:00", "2026-02-30T00:00:00Z", "2026-02-01", "1769934600000"])
def test_expiry_that_is_no_time(text: str) -> None:
    """A time that does not exist, or without its zone, is a bad answer."""
    with pytest.raises(BadAnswer, match="expiredAt"):
        parsing.parse_key(encoded({**KEY, "expiredAt": text}))


@pytest.mark.parametrize(
    ("ips", "is_bound"), [(["*"], False), ([], False), (["192.0.2.1", "*"], False), (["::1"], True)]
)
def test_address_of_a_key(ips: list[str], is_bound: bool) -> None:
    """A star is every address, and so is none at all."""
    assert parsing.parse_key(encoded({**KEY, "ips": ips})).is_address_bound is is_bound


@pytest.mark.parametrize("name", ["", "x" * 41, "a\nb", "<b>", "Größe"])
def test_permissions_can_be_shown(name: str) -> None:
    """A permission whose name should not be shown to people is a bad answer, as a group or within one."""
    for permissions in ({name: ["Order"]}, {"Spot": [name]}):
        with pytest.raises(BadAnswer, match="permissions"):
            parsing.parse_key(encoded({**KEY, "permissions": permissions}))


def test_bad_answers_do_not_quote() -> None:
    """The detail says what is wrong and where, and repeats nothing that the exchange wrote."""
    with pytest.raises(BadAnswer) as caught:
        parsing.parse_position(listing({**LONG, "size": "canary"}), "LTCUSDT")
    assert "canary" not in caught.value.detail
    with pytest.raises(BadAnswer) as caught:
        parsing.parse_position(listing({**LONG, "seq": "canary"}), "LTCUSDT")
    assert "canary" not in caught.value.detail


DEEP = b"[" * 99_999 + b"]" * 99_999


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"list":', b"\xff\xfe", b'{"list":[{"symbol":"\xff"}]}', DEEP, b'{"list":[],"x":' + DEEP + b"}"],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    """Nothing, half of something, bytes of another encoding, and depths without end: a bad answer."""
    with pytest.raises(BadAnswer):
        parsing.parse_instrument_page(raw)
