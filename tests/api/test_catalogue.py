"""GET /indicators: the whole catalogue, and a part of it with parameters as asked."""

import hashlib
from typing import Any

import pytest

from tests.api.test_rest import ask, refused
from tests.conftest import StartGateway


async def test_catalogue_describes_every_indicator(start_gateway: StartGateway) -> None:
    """Name, title, group, inputs, parameters with default and range, outputs and warm-up of each."""
    answer = await ask(await start_gateway(), "/indicators")
    assert answer["exchange"] == "simulator"
    assert answer["charts"] == ["candles", "heikinashi"]
    assert answer["sources"][:5] == ["open", "high", "low", "close", "volume"]
    by_name: dict[str, Any] = {each["name"]: each for each in answer["indicators"]}
    assert len(by_name) == len(answer["indicators"]) == 203
    assert list(by_name) == sorted(by_name)
    macd = by_name["macd"]
    assert macd["title"] == "Moving Average Convergence/Divergence"
    assert (macd["group"], macd["sources"], macd["inputs"]) == ("Momentum Indicators", ["close"], [])
    assert (macd["outputs"], macd["memory"]) == (["macd", "signal", "histogram"], "fading")
    assert (macd["warm_up"], macd["usage"]) == (33, "macd:fast=12:slow=26:signal=9")
    assert macd["parameters"][0] == {
        "name": "fast",
        "title": "Candles of the fast average",
        "default": 12,
        "value": 12,
        "minimum": 2,
        "maximum": 500,
    }
    assert by_name["pivots"]["parameters"][0]["words"] == ["classic", "fibonacci", "camarilla", "woodie"]
    assert (by_name["obv"]["settling"], by_name["obv"]["memory"]) == (None, "whole")


async def test_names_are_described_as_asked(start_gateway: StartGateway) -> None:
    """With names, each comes with its own values, source, warm-up and settling, in the order asked."""
    answer = await ask(await start_gateway(), "/indicators?names=rsi:7@hl2,bbands:ma=ema")
    rsi, bands = answer["indicators"]
    assert (rsi["key"], rsi["sources"], rsi["warm_up"]) == ("rsi:7@hl2", ["hl2"], 7)
    assert rsi["settling"] > rsi["warm_up"]
    assert (rsi["parameters"][0]["value"], rsi["parameters"][0]["default"]) == (7, 14)
    assert (bands["parameters"][3]["value"], bands["memory"]) == ("ema", "fading")


async def test_catalogue_has_a_tag(start_gateway: StartGateway) -> None:
    """What has not changed is 304; another question has another tag."""
    gateway = await start_gateway()
    async with gateway.get("/indicators") as response:
        tag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "private, no-cache"
    async with gateway.get("/indicators", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with gateway.get("/indicators?names=rsi", headers={"If-None-Match": tag}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("names=rsii", "invalid_names", "did you mean rsi?"),
        ("names=rsi:999", "invalid_names", "2 to 500"),
        ("name=rsi", "invalid_parameter", "allowed: names"),
    ],
)
async def test_wrong_questions_are_refused(start_gateway: StartGateway, query: str, code: str, says: str) -> None:
    """A wrong name, value or parameter is 400 with what would be right."""
    problem = await refused(await start_gateway(), f"/indicators?{query}", 400, code)
    assert says in problem["detail"]


async def test_catalogue_needs_a_token(start_gateway: StartGateway) -> None:
    """Where tokens are set, the catalogue is no open route."""
    gateway = await start_gateway(auth={"tokens": (hashlib.sha256(b"a-token").hexdigest(),)})
    await refused(gateway, "/indicators", 401, "unauthenticated")
    answer = await ask(gateway, "/indicators?names=obv", Authorization="Bearer a-token")
    assert answer["indicators"][0]["name"] == "obv"
