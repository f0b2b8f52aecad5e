"""POST /indicators over real connections: each question answered or failed on its own, candles fetched once."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from server.access.tokens import TokenEntry, hash_of
from server.api.keys import LOAD
from server.app import create_app
from tests.conftest import Exchange, Gateway, StartGateway, settings_for

KLINE = "/v5/market/kline"


async def ask(gateway: Gateway, *questions: dict[str, Any], **fields: Any) -> tuple[int, Any]:
    """Status and document."""
    async with gateway.post("/indicators", json={"questions": questions, **fields}) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize(("count", "status"), [(0, 400), (1, 200), (200, 200), (201, 400)])
async def test_count_of_questions(start_gateway: StartGateway, count: int, status: int) -> None:
    """One to 200 questions are taken."""
    gateway = await start_gateway()
    answered, document = await ask(gateway, *[{"symbol": "BTCUSDT", "names": "rsi"}] * count)
    assert answered == status
    assert len(document.get("answers", ())) == (count if status == 200 else 0)


async def test_failures_stay_alone_and_in_order(start_gateway: StartGateway, exchange: Exchange) -> None:
    """What fails says so in its place; the candles of a topic are fetched once."""
    gateway = await start_gateway()
    good: list[dict[str, Any]] = [{"symbol": "BTCUSDT", "names": f"rsi:{period}"} for period in (7, 14, 21)]
    wrong: list[dict[str, Any]] = [
        {"symbol": "NOSUCH"},
        {"symbol": "BTCUSDT", "results": 0},
        {"symbol": "BTCUSDT", "colour": "red"},
    ]
    status, document = await ask(gateway, good[0], wrong[0], good[1], wrong[1], good[2], wrong[2])
    assert status == 200
    told = [(one["error"]["code"], one["question"]) if "error" in one else None for one in document["answers"]]
    assert told == [None, ("unknown_symbol", 1), None, ("invalid_results", 3), None, ("invalid_parameter", 5)]
    assert [f"rsi:{period}" in document["answers"][place]["data"] for place, period in ((0, 7), (2, 14), (4, 21))]
    assert (await exchange.calls())[KLINE] == 1


async def test_post_equals_get(start_gateway: StartGateway) -> None:
    """A question has the same answer by either way."""
    gateway = await start_gateway()
    query: dict[str, Any] = {
        "interval": "D",
        "names": "rsi:14@hl2,macd",
        "results": 3,
        "backtrack": 2,
        "chart": "heikinashi",
    }
    _, document = await ask(gateway, {"symbol": "BTCUSDT", **query}, max_age_ms=3_600_000)
    async with gateway.get("/indicators/BTCUSDT", params={**query, "max_age_ms": 3_600_000}) as response:
        got = await response.json()
    apart = {"exchange", "timestamp_ms", "age_ms"}
    (posted,) = document["answers"]
    assert {k: v for k, v in posted.items() if k not in apart} == {k: v for k, v in got.items() if k not in apart}


async def test_the_query_is_not_asked(start_gateway: StartGateway) -> None:
    """What a GET has in its query, a POST has in its body: there it would be passed over."""
    gateway = await start_gateway()
    async with gateway.post("/indicators?names=rsi", json={"questions": [{"symbol": "BTCUSDT"}]}) as response:
        assert (response.status, (await response.json())["code"]) == (400, "invalid_parameter")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"questions": 1}', b'{"questions": [], "colour": 1}', b"\xff"])
async def test_malformed(start_gateway: StartGateway, body: bytes) -> None:
    """What is no document of questions is refused whole."""
    gateway = await start_gateway()
    async with gateway.post("/indicators", data=body) as response:
        assert response.status == 400


async def test_tokens_see_their_symbols(start_gateway: StartGateway) -> None:
    """A question about a symbol that the token may not read fails alone."""
    token = "a-token-of-one-symbol-0123456789"
    entry = TokenEntry(name="one", hash=hash_of(token), symbols=("BTCUSDT",))
    gateway = await start_gateway(auth={"tokens": (entry,)})
    body = {"questions": [{"symbol": "ETHUSDT"}, {"symbol": "BTCUSDT"}]}
    async with gateway.post("/indicators", json=body, headers={"Authorization": f"Bearer {token}"}) as response:
        first, second = (await response.json())["answers"]
    assert first["error"]["code"] == "forbidden"
    assert second["symbol"] == "BTCUSDT"


async def test_a_topic_that_fails_fails_alone(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Candles that cannot be had fail the questions about them, and no others."""
    gateway = await start_gateway()
    await ask(gateway, {"symbol": "BTCUSDT", "interval": "D"})
    await exchange.fault("kline", ret_code=10016)
    questions = [{"symbol": "ETHUSDT", "names": "rsi"}, {"symbol": "BTCUSDT", "interval": "D", "names": "rsi"}]
    _, document = await ask(gateway, *questions, max_age_ms=3_600_000)
    failed, answered = document["answers"]
    assert (failed["error"]["code"], failed["question"]) == ("upstream_unavailable", 0)
    assert answered["interval"] == "D"


async def test_no_more_numbers_than_allowed(start_gateway: StartGateway) -> None:
    """So many numbers that they would fill the memory are refused together, before anything is fetched."""
    gateway = await start_gateway(server={"body_bytes": 1_000_000})
    names = ",".join(f"sma:{period}" for period in range(2, 52))
    question = {"symbol": "BTCUSDT", "names": names, "results": 500, "interval": "D"}
    status, document = await ask(gateway, question, question)
    assert status == 200
    assert [len(answer["series"]) for answer in document["answers"]] == [51, 51]
    status, document = await ask(gateway, question, question, {"symbol": "BTCUSDT"})
    assert (status, document["code"]) == (400, "invalid_questions")


async def test_any_question_by_either_way(start_gateway: StartGateway) -> None:
    """Whatever is asked, the POST's answer is the GET's: thirty questions at random, all in one POST."""
    gateway, chance = await start_gateway(), random.Random(7)
    questions = []
    for _ in range(30):
        names = chance.sample(["rsi:14", "macd", "bbands:up=2.5@hl2", "obv", "ema:200", "cdldoji"], chance.randrange(7))
        questions.append(
            {
                "interval": chance.choice(["D", "W"]),
                "results": chance.randrange(1, 20),
                "backtrack": chance.randrange(30),
                "closed": chance.random() < 0.5,
                "chart": chance.choice(["candles", "heikinashi"]),
                **({"names": ",".join(names)} if names else {}),
            }
        )
    _, document = await ask(gateway, *({"symbol": "BTCUSDT", **one} for one in questions), max_age_ms=3_600_000)
    for question, posted in zip(questions, document["answers"], strict=True):
        params: dict[str, Any] = {**question, "closed": str(question["closed"]).lower(), "max_age_ms": 3_600_000}
        async with gateway.get("/indicators/BTCUSDT", params=params) as response:
            got = await response.json()
        assert {**posted, "age_ms": 0} == {k: v for k, v in got.items() if k not in ("exchange", "timestamp_ms")} | {
            "age_ms": 0
        }


@pytest.fixture
async def served(exchange: Exchange) -> AsyncIterator[tuple[web.Application, int]]:
    """A gateway and its port; the server of aiohttp's tests would cancel the handler of who leaves, ours does not."""
    app = create_app(settings_for(exchange.url, server={"body_timeout_s": 1.0}))
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield app, runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("field", "first", "rest", "status"),
    [
        ("Content-Length: 40", b"half", b"less", 408),
        ("Content-Length: 40", b"half", b"", 400),
        ("Transfer-Encoding: chunked", b"28\r\nhalf", b"", 400),
        ("Transfer-Encoding: chunked", b"4\r\nhalf\r\n", b"no number\r\n", 408),
        ("Content-Length: 4\r\nContent-Encoding: gzip", b"", b"half", 400),
        ("Content-Length: 4\r\nContent-Encoding: deflate", b"", b"\xff\xff\xff\xff", 400),
    ],
    ids=["too slow", "left", "left within a chunk", "malformed chunk", "no gzip", "no deflate"],
)
async def test_a_body_that_cannot_be_read(
    served: tuple[web.Application, int], field: str, first: bytes, rest: bytes, status: int
) -> None:
    """That is the client's doing: no crash, no traceback, and no failure of ours among the numbers."""
    app, port = served
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST /indicators HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n\r\n".encode() + first)
        async with asyncio.timeout(10):
            while not app[LOAD].requests:
                await asyncio.sleep(0.01)
            writer.write(rest)
            await writer.drain()
            if not rest:
                writer.close()
            while not (events := [line for line in logs if line["event"] in ("request_crashed", "request_ended")]):
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
    assert [(line["event"], line.get("status")) for line in events] == [("request_ended", status)]
