"""The thirty that everybody uses, against definitions of their own."""

import numpy as np
import pytest

from server.market.indicators import CATALOGUE, parse_names
from tests.market.indicators.definitions import DEFINITIONS
from tests.market.indicators.markets import answers, market


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_indicator_is_its_definition(name: str, seed: int) -> None:
    """From the first value on, each output is what its definition gives, to 1e-9, and is null no longer than that."""
    candles = market(700, seed=seed)
    (question,) = parse_names(name, max_names=1)
    outputs, defined = answers(candles, name), DEFINITIONS[name](candles)
    assert len(outputs) == len(defined) == len(question.indicator.outputs)
    for ours, plain in zip(outputs, defined, strict=True):
        known = np.isfinite(ours)
        assert known[-600:].all()
        np.testing.assert_allclose(ours[known], plain[known], rtol=1e-9, atol=1e-9)


def test_thirty_have_a_word_on_tradingview() -> None:
    """Each of them says in the catalogue by what convention it goes."""
    assert [name for name in DEFINITIONS if not CATALOGUE[name].note] == []
