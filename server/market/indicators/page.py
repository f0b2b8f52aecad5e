"""The page docs/indicators.md, made from the catalogue."""

from collections.abc import Iterator

from .averages import WORDS
from .catalogue import CATALOGUE
from .indicator import Indicator
from .parameters import LONGEST, Parameter
from .prices import SOURCES

AVERAGE_LIST = ", ".join(f"`{name}` {number}" for name, number in WORDS.items())
SOURCE_LIST = ", ".join(f"`{name}`" for name in SOURCES)

HEAD = f"""\
# Indicators

Made from the catalogue by `python -X utf8 -m server.market.indicators > docs/indicators.md`; `GET /indicators` gives
the same as JSON.

A name is asked for as `name:parameter:...@source`, parameters by position in the order of these tables, or by name:
`rsi`, `rsi:14`, `macd:12:26:9`, `bbands:up=2.5:ma=ema`, `rsi:14@hl2`. What is left out has the default given here. A
number in brackets is its range, {{words}} are all it may be; periods begin where TA-Lib allows and end at {LONGEST}.

**Averages**: {AVERAGE_LIST};
by word or by TA-Lib's number.

**Sources**: {SOURCE_LIST}.
Where the column *of* has a name with `@`, another source can be asked for; those without it are fixed.
With `chart=heikinashi` all columns but the volume are those of Heikin-Ashi candles; these begin anew with the first
candle held and have forgotten that after 37, which adds to an indicator's settling.

**Warm-up** counts the candles before the first value, with the defaults; until then, and where a value is no finite
number, it is null. **Settling** counts the candles before a value that is within 1e-9, of the largest value of its
indicator, of what it were over any longer history. For what looks at a window both are the same. For exponential
averages and what is built on them settling is computed for a start a hundred times as large as today's values; for
the Hilbert transform it was measured. It has no number (—) for a *path*, which forgets its start when it next turns
over; a *session*, the day or another span of the calendar; and for the *whole*, which always depends on where the
candles begin.

The classic set is computed over exactly the last 1,000 candles. An indicator by name that settles later gets more, by
whole thousands up to `indicators.max_candles` of config.toml, so that its value does not depend on where they begin,
to the precision above; `candle_count` of the answer says over how many it was. What depends on the *whole* of them,
such as `obv` and `ad`, counts from the first of these candles on: there is no beginning that all would agree on. A
value never depends on a later candle. TA-Lib's process-wide settings are as delivered.
"""

COLUMNS = "| name | parameters | of | outputs | warm-up | settling |\n|---|---|---|---|---|---|"


def page() -> str:
    """The whole page."""
    groups = sorted({indicator.group for indicator in CATALOGUE.values()})
    return "\n".join((HEAD, *(_group(group) for group in groups), _conventions()))


def _group(group: str) -> str:
    rows = (_row(indicator) for indicator in CATALOGUE.values() if indicator.group == group)
    return "\n".join((f"## {group}\n", COLUMNS, *rows, ""))


def _row(indicator: Indicator) -> str:
    warm_up, settling = indicator.warm_up(indicator.defaults), indicator.settling(indicator.defaults)
    cells = (
        f"`{indicator.name}` {indicator.title}",
        ", ".join(_parameter(parameter) for parameter in indicator.parameters),
        " ".join((*(f"@{source}" for source in indicator.sources), *indicator.inputs)),
        " ".join(indicator.outputs) if len(indicator.outputs) > 1 else "",
        "—" if warm_up is None else str(warm_up),
        f"— {indicator.memory}" if settling is None else str(settling),
    )
    return f"| {' | '.join(cells)} |"


def _parameter(parameter: Parameter) -> str:
    default = f"{parameter.name}={parameter.written(parameter.default)}"
    if parameter.words:
        return f"{default} {{{'average' if 'sma' in parameter.words else ' '.join(parameter.words)}}}"
    return f"{default} ({parameter.lowest:.12g}–{parameter.highest:.12g})"


def _conventions() -> str:
    return "\n".join(("## Conventions, and TradingView's\n", *_notes()))


def _notes() -> Iterator[str]:
    for indicator in CATALOGUE.values():
        if indicator.note:
            yield f"- `{indicator.name}` {indicator.note}"
    yield ""
