"""Inquiries: what is parsed once, and what is not kept."""

from types import SimpleNamespace
from typing import Any

import pytest

from server.api.inquiry import INQUIRIES, MOST, Inquiries
from server.errors import InvalidRequest
from tests.conftest import StartGateway


def request(path: str) -> Any:
    """All that inquiries look at."""
    return SimpleNamespace(raw_path=path)


def test_each_spelling_is_parsed_once() -> None:
    """The same path and query is the same inquiry, another one is not."""
    inquiries, parsed = Inquiries(), []

    def parse(asked: Any) -> Any:
        parsed.append(asked.raw_path)
        return object()

    first = inquiries.find(request("/price/BTCUSDT"), parse)
    assert inquiries.find(request("/price/BTCUSDT"), parse) is first
    assert inquiries.find(request("/price/BTCUSDT?max_age_ms=0"), parse) is not first
    assert parsed == ["/price/BTCUSDT", "/price/BTCUSDT?max_age_ms=0"]


def test_no_more_spellings_than_allowed_are_kept() -> None:
    """Whoever spells questions ever anew makes nothing grow."""
    inquiries = Inquiries()
    for number in range(2 * MOST + 1):
        inquiries.find(request(f"/price/BTCUSDT?max_age_ms={number}"), lambda _: object())  # type: ignore[arg-type,return-value]
        assert len(inquiries._known) <= MOST


def test_what_is_asked_now_and_then_is_kept() -> None:
    """Whoever spells questions ever anew does not push out those of others."""
    inquiries = Inquiries()
    first = inquiries.find(request("/price/BTCUSDT"), lambda _: object())  # type: ignore[arg-type,return-value]
    for number in range(3 * MOST):
        inquiries.find(request(f"/price/BTCUSDT?max_age_ms={number}"), lambda _: object())  # type: ignore[arg-type,return-value]
        if number % (MOST - 1) == 0:
            assert inquiries.find(request("/price/BTCUSDT"), lambda _: object()) is first  # type: ignore[arg-type,return-value]


def test_what_is_refused_is_not_kept() -> None:
    """A refused question is parsed, and refused, each time."""
    inquiries = Inquiries()

    def parse(_: Any) -> Any:
        raise InvalidRequest("limit", "too many")

    for _ in range(2):
        with pytest.raises(InvalidRequest):
            inquiries.find(request("/klines/BTCUSDT?limit=9999"), parse)
    assert not inquiries._known


async def test_a_remembered_question_still_asks_for_the_symbol(start_gateway: StartGateway) -> None:
    """However often it is asked, a symbol that is not there stays unknown, and one that is there is answered anew."""
    gateway = await start_gateway()
    for _ in range(2):
        async with gateway.get("/price/NOSUCHUSDT") as response:
            assert response.status == 404
    tags = set()
    for age_ms in (0, 0):
        async with gateway.get(f"/price/BTCUSDT?max_age_ms={age_ms}") as response:
            assert response.status == 200
            tags.add(response.headers["ETag"])
    assert len(tags) == 2
    assert len(gateway.app[INQUIRIES]._known) == 2
