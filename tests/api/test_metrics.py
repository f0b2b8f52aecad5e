"""/metrics: what is counted is right, is valid text, and is bounded."""

import asyncio
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from server.api.keys import HUB
from server.metrics.catalogue import METRICS
from server.metrics.requests import UNMATCHED
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive
from tests.realtime.sockets import eventually

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(gateway: Gateway) -> Samples:
    """Every sample by name and labels, `worker` left out."""
    response = await gateway.get("/metrics")
    assert response.status == 200, await response.text()
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if k != "worker")): sample.value
        for family in parse_text(await response.text())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where it is not there yet."""
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.mark.parametrize("headers", [{}, OPENMETRICS, {"Accept": "text/plain"}])
async def test_the_page_is_valid(start_gateway: StartGateway, headers: dict[str, str]) -> None:
    """Prometheus' own parsers read either format, and each sample has a worker, a type and help."""
    gateway = await start_gateway()
    await (await gateway.get("/price/BTCUSDT")).read()
    response = await gateway.get("/metrics", headers=headers)
    parse: Any = parse_openmetrics if headers == OPENMETRICS else parse_text
    assert response.headers["Content-Type"].startswith(
        "application/openmetrics" if parse is parse_openmetrics else "text"
    )
    families = {family.name: family for family in parse(await response.text())}
    assert len(families) > 30
    for name, family in families.items():
        metric = METRICS.get(name) or METRICS[f"{name}_total"]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == {*metric.labels, "worker"}, sample


async def test_requests_are_counted_by_route_and_status(start_gateway: StartGateway) -> None:
    """Each request counts under its route's pattern; paths that somebody makes up are one series."""
    gateway = await start_gateway()
    before = await scraped(gateway)
    for path in ("/price/BTCUSDT", "/price/ETHUSDT", "/price/nothing!", "/made/up", "/made-up", "/livez"):
        await (await gateway.get(path)).read()
    after = await scraped(gateway)

    def gained(route: str, status: str) -> float:
        labels = {"route": route, "status": status}
        return value(after, "gateway_requests_total", **labels) - value(before, "gateway_requests_total", **labels)

    assert gained("/price/{symbol}", "200") == 2
    assert gained("/price/{symbol}", "400") == 1
    assert gained(UNMATCHED, "404") == 2
    assert gained("/livez", "200") == 1
    assert value(after, "gateway_request_duration_seconds_count", route="/price/{symbol}") == 3
    assert value(after, "gateway_request_duration_seconds_bucket", route="/price/{symbol}", le="+Inf") == 3
    routes = {dict(labels)["route"] for name, labels in after if name == "gateway_requests_total"}
    assert routes <= {r.resource.canonical for r in gateway.app.router.routes() if r.resource} | {UNMATCHED}


async def test_sockets_are_counted_and_what_was_counted_stays(start_gateway: StartGateway) -> None:
    """Frames of a socket that has gone are not lost, and its end counts under its close code."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=0.1") as ws:
        for _ in range(3):
            await receive(ws)
        during = await scraped(gateway)
    await eventually(lambda: sum(gateway.app[HUB].tally.closed.values()) == 1)
    after = await scraped(gateway)
    assert value(during, "gateway_sockets") == value(during, "gateway_sessions") == 1
    assert value(during, "gateway_subscriptions", channel="positions", pace="interval") == 1
    assert value(after, "gateway_frames_sent_total") >= value(during, "gateway_frames_sent_total") >= 3
    assert value(after, "gateway_sockets") == value(after, "gateway_sessions") == 0
    assert (
        value(after, "gateway_sockets_opened_total") == value(after, "gateway_sockets_closed_total", code="1000") == 1
    )


async def test_a_refused_socket_is_counted_by_its_code(start_gateway: StartGateway) -> None:
    """A symbol that does not exist ends the socket with 4404, which is counted; a client's own code is not a series."""
    gateway = await start_gateway()
    ws = await gateway.ws_connect("/ws/positions/NOSUCHUSDT")
    assert (await closing(ws))[0] == 4404
    other = await gateway.ws_connect("/ws")
    await other.close(code=3999)
    await eventually(lambda: sum(gateway.app[HUB].tally.closed.values()) == 2)
    after = await scraped(gateway)
    assert value(after, "gateway_sockets_closed_total", code="4404") == 1
    assert value(after, "gateway_sockets_closed_total", code="other") == 1


async def test_calls_to_the_exchange_are_counted(start_gateway: StartGateway, exchange: Exchange) -> None:
    """By endpoint and outcome, with how long they took; failures and what a breaker forbids apart."""
    gateway = await start_gateway()
    await (await gateway.get("/price/BTCUSDT")).read()
    good = await scraped(gateway)
    assert value(good, "gateway_upstream_calls_total", endpoint="tickers", outcome="ok") >= 1
    assert value(good, "gateway_upstream_call_duration_seconds_count", endpoint="tickers") >= 1
    assert value(good, "gateway_breaker_state", scope="address", state="closed") == 1
    assert 0 < value(good, "gateway_budget_left", window="address") < 480
    await exchange.fault("tickers", status=403)
    for _ in range(2):
        await (await gateway.get("/price/ETHUSDT")).read()
    await (await gateway.get("/klines/ETHUSDT")).read()
    banned = await scraped(gateway)
    assert value(banned, "gateway_breaker_state", scope="address", state="open") == 1
    assert value(banned, "gateway_breaker_state", scope="address", state="closed") == 0
    outcomes = {dict(labels).get("outcome") for name, labels in banned if name == "gateway_upstream_calls_total"}
    assert "ok" in outcomes
    assert len(outcomes) > 1
    assert any(name == "gateway_upstream_refused_total" for name, _ in banned)


@pytest.mark.parametrize("symbols", [False, True])
async def test_symbols_are_labels_only_if_wanted(start_gateway: StartGateway, symbols: bool) -> None:
    """No sample names a symbol unless metrics.symbols says so; ages by kind are there either way."""
    gateway = await start_gateway(metrics={"symbols": symbols})
    await (await gateway.get("/price/BTCUSDT")).read()
    samples = await scraped(gateway)
    named = {dict(labels)["symbol"] for _, labels in samples if "symbol" in dict(labels)}
    assert ("BTCUSDT" in named) is symbols
    assert bool(named) is symbols
    assert ("gateway_reading_age_seconds", frozenset({("kind", "ticker"), ("which", "oldest")})) in samples


async def test_parameters_are_refused(start_gateway: StartGateway) -> None:
    """What the route does not know is not passed over in silence."""
    gateway = await start_gateway()
    assert (await gateway.get("/metrics?name=x")).status == 400


async def test_the_key_tells_when_it_expires(start_gateway: StartGateway) -> None:
    """The moment is the one that /health names."""
    gateway = await start_gateway()

    async def expires_at_ms() -> int | None:
        async with gateway.get("/health") as response:
            key = (await response.json())["key"]
        return None if key is None else key["expires_at_ms"]

    async with asyncio.timeout(10):
        while (at_ms := await expires_at_ms()) is None:
            await asyncio.sleep(0.01)
    assert value(await scraped(gateway), "gateway_key_expiry_timestamp_seconds") == at_ms / 1000
