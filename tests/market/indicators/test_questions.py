"""Questions: names, parameters by position and by name, and sources; every wrong one says what would be right."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.market.indicators import CATALOGUE, compute, parse_names
from tests.market.indicators.markets import answers, market

CANDLES = market(300)


@pytest.mark.parametrize("name", CATALOGUE)
def test_defaults_are_used(name: str) -> None:
    """A name alone is the same as the name with its defaults written out, by number, by word and by name."""
    parameters = CATALOGUE[name].parameters
    by_number = ":".join([name, *(f"{parameter.default:g}" for parameter in parameters)])
    by_word = ":".join([name, *(parameter.written(parameter.default) for parameter in parameters)])
    alone, *written = (
        [array.tobytes() for array in answers(CANDLES, text)]
        for text in (name, by_number, by_word, CATALOGUE[name].usage)
    )
    assert written == [alone] * 3


@pytest.mark.parametrize(
    ("name", "values", "sources"),
    [
        ("rsi", (14,), ("close",)),
        ("rsi:7", (7,), ("close",)),
        ("rsi:14@hl2", (14,), ("hl2",)),
        ("rsi@ohlc4", (14,), ("ohlc4",)),
        (" RSI:7 ", (7,), ("close",)),
        ("bbands:20:2.5", (20, 2.5, 2, 0), ("close",)),
        ("bbands:period=30:up=2.5", (30, 2.5, 2, 0), ("close",)),
        ("bbands:30:down=1:ma=ema", (30, 2, 1, 1), ("close",)),
        ("bbands:20:2:2:t3", (20, 2, 2, 8), ("close",)),
        ("macd:signal=5", (12, 26, 5), ("close",)),
        ("stoch:14:3:3", (14, 3, 3, 0, 0), ()),
        ("stoch:14:3:3:ema:ema", (14, 3, 3, 1, 1), ()),
        ("correl:10@close/volume", (10,), ("close", "volume")),
        ("vwap:week", (1,), ("hlc3",)),
        ("pivots:woodie", (3,), ()),
        ("sarext:start=-5", (-5, 0, 0.02, 0.02, 0.2, 0.02, 0.02, 0.2), ()),
    ],
)
def test_names_are_understood(name: str, values: tuple[float, ...], sources: tuple[str, ...]) -> None:
    """Parameters by position, by name and mixed, averages by word, sources after @."""
    (question,) = parse_names(name, max_names=1)
    assert (question.key, question.values, question.sources) == (name.strip().lower(), values, sources)
    assert question.source == "/".join(sources)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("", "a name is empty; GET /indicators lists all"),
        ("rsi,", "a name is empty"),
        ("rsii", r"did you mean rsi\? GET /indicators"),
        ("keltner", r"did you mean kc\?"),
        ("zzzz", "no indicator 'zzzz'; GET /indicators"),
        ("x" * 100, f"no indicator '{'x' * 40}';"),
        ("rsi:1", "allowed: whole numbers 2 to 500"),
        ("rsi:501", "allowed: whole numbers 2 to 500"),
        ("rsi:x", "allowed: whole numbers 2 to 500"),
        ("rsi:", "allowed: whole numbers 2 to 500"),
        ("rsi:2.5", "allowed: whole numbers 2 to 500"),
        ("rsi:\u0663", "allowed: whole numbers 2 to 500"),
        ("rsi:14:3", "rsi:period=14"),
        ("obv:1", "obv takes 0 parameters: obv"),
        ("bbands:20:nan", "allowed: 0 to 100"),
        ("bbands:20:1e1", "allowed: 0 to 100"),
        ("bbands:ma=vwma", "allowed: sma, ema, wma, dema, tema, trima, kama, mama, t3"),
        ("bbands:ma=10", "allowed: sma, ema"),
        ("bbands:ma=1.5", "allowed: sma, ema"),
        ("bbands:length=20", "no parameter 'length'; allowed: bbands:period=20:up=2:down=2:ma=sma"),
        ("bbands:20:period=20", "each parameter once"),
        ("bbands:up=2:up=3", "each parameter once"),
        ("bbands:up=2:20", "by position first"),
        ("bbands:=20", "no parameter ''"),
        ("rsi@", "the source of rsi is ''; allowed: open, high, low, close, volume, hl2"),
        ("rsi@middle", "allowed: open, high, low, close, volume, hl2, hlc3, ohlc4, hlcc4, one of them"),
        ("rsi@high/low", "one of them"),
        ("rsi@close@open", "the source of rsi is 'close@open'"),
        ("correl@close", "two of them, as in high/low"),
        ("atr@close", "atr is computed of high and low and close, and takes no source"),
        ("mavp:30:2", "does not take these values together"),
        ("rsi,rsi", "twice"),
        ("sma:2,sma:3,sma:4,sma:5", "at most 3"),
    ],
)
def test_wrong_names_say_what_is_allowed(names: str, says: str) -> None:
    """Every wrong name is refused with what would be right."""
    with pytest.raises(InvalidRequest, match=says):
        parse_names(names, max_names=3)


NAMED = st.sampled_from(sorted(CATALOGUE))
PIECES = st.sampled_from(
    ["1", "2", "14", "500", "0.5", "ema", "period=3", "fast=4", "up=", "=", "@hl2", "@", "close/low"]
)


@given(st.one_of(st.text(max_size=60), st.builds(lambda name, rest: ":".join([name, *rest]), NAMED, st.lists(PIECES))))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text whatever breaks the parser, and what it accepts can be computed."""
    try:
        questions = parse_names(text, max_names=5)
    except InvalidRequest:
        return
    compute(CANDLES, questions).at(-1)


def test_questions_can_be_remembered() -> None:
    """The same name is the same question; another source or value is another."""
    texts: list[Any] = ["rsi", "rsi", "rsi@open", "rsi:7"]
    one, same, source, value = ([*parse_names(text, max_names=1)] for text in texts)
    assert one == same
    assert hash(one[0]) == hash(same[0])
    assert len({*one, *source, *value}) == 3
