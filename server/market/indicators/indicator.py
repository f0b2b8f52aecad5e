"""Indicator: a name, what it takes, what it gives, and the function between them."""

from collections.abc import Callable

from msgspec import Struct

from .memory import Fading, Memory
from .parameters import Parameter
from .prices import Array, Prices

Values = tuple[float, ...]
Function = Callable[[Prices, tuple[Array, ...], Values], tuple[Array, ...]]


class Indicator(Struct, frozen=True, eq=False):
    """One indicator. Its function takes prices, its sources' columns and the values of its parameters, in their order.

    `sources` are the columns that can be chosen, by default; `inputs` those that cannot. `warm_up` and `fading` tell of
    given values; a `warm_up` of None is not a number of candles.
    """

    name: str
    title: str
    group: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    function: Function
    warm_up: Callable[[Values], int | None]
    memory: Memory = Memory.WINDOW
    fading: Callable[[Values], Fading | None] = lambda _: None
    days: Callable[[Values], int] = lambda _: 0
    """How many days of candles a value may need, where it depends on sessions."""
    note: str = ""

    @property
    def defaults(self) -> Values:
        """The values of its parameters where nothing is said."""
        return tuple(parameter.default for parameter in self.parameters)

    @property
    def usage(self) -> str:
        """How it is asked for, with its defaults: `rsi:period=14`."""
        return ":".join((self.name, *(f"{p.name}={p.written(p.default)}" for p in self.parameters)))

    def remembers(self, values: Values) -> Memory:
        """What it depends on with these values: a band of simple averages has no more than a window."""
        return Memory.WINDOW if self.memory is Memory.FADING and not self._fading_candles(values) else self.memory

    def settling(self, values: Values) -> int | None:
        """Candles before a value that does not depend on where they start; None where no number promises that."""
        warm_up = self.warm_up(values)
        if warm_up is None or self.memory not in (Memory.WINDOW, Memory.FADING):
            return None
        return warm_up + self._fading_candles(values)

    def _fading_candles(self, values: Values) -> int:
        fading = self.fading(values)
        return 0 if fading is None else fading.candles
