"""The catalogue: every indicator by name, and how each describes itself."""

from msgspec import UNSET, Struct, UnsetType

from .bollinger import with_width
from .ichimoku import ICHIMOKU
from .indicator import Indicator, Values
from .parameters import Parameter
from .pivots import PIVOTS
from .talib_functions import talib_indicators
from .vwap import VWAP


def _catalogue() -> dict[str, Indicator]:
    indicators = {indicator.name: indicator for indicator in (*talib_indicators(), ICHIMOKU, PIVOTS, VWAP)}
    indicators["bbands"] = with_width(indicators["bbands"])
    return {name: indicators[name] for name in sorted(indicators)}


CATALOGUE = _catalogue()
"""Every indicator by its name, in the order of the names."""


class ParameterDescription(Struct, frozen=True):
    """One parameter: what it is, its default and range, and its value where an indicator is asked about with one."""

    name: str
    title: str
    default: float | str
    value: float | str
    minimum: float | UnsetType = UNSET
    maximum: float | UnsetType = UNSET
    words: tuple[str, ...] | UnsetType = UNSET


class Description(Struct, frozen=True):
    """One indicator with given values of its parameters. `warm_up` and `settling` count candles before a value."""

    key: str
    name: str
    title: str
    group: str
    usage: str
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    parameters: tuple[ParameterDescription, ...]
    outputs: tuple[str, ...]
    warm_up: int | None
    settling: int | None
    memory: str
    note: str


def described(key: str, indicator: Indicator, values: Values, sources: tuple[str, ...]) -> Description:
    """`indicator` with `values` over `sources`, in words and numbers for clients."""
    return Description(
        key=key,
        name=indicator.name,
        title=indicator.title,
        group=indicator.group,
        usage=indicator.usage,
        inputs=indicator.inputs,
        sources=sources,
        parameters=_parameters(indicator, values),
        outputs=indicator.outputs,
        warm_up=indicator.warm_up(values),
        settling=indicator.settling(values),
        memory=indicator.remembers(values).value,
        note=indicator.note,
    )


def _parameters(indicator: Indicator, values: Values) -> tuple[ParameterDescription, ...]:
    return tuple(_parameter(*pair) for pair in zip(indicator.parameters, values, strict=True))


def _parameter(parameter: Parameter, value: float) -> ParameterDescription:
    default, shown = parameter.shown(parameter.default), parameter.shown(value)
    if parameter.words:
        return ParameterDescription(parameter.name, parameter.title, default, shown, words=tuple(parameter.words))
    bounds = parameter.lowest, parameter.highest
    return ParameterDescription(parameter.name, parameter.title, default, shown, *bounds)


def catalogue() -> tuple[Description, ...]:
    """Every indicator with its defaults, by name."""
    return tuple(
        described(indicator.name, indicator, indicator.defaults, indicator.sources) for indicator in CATALOGUE.values()
    )
