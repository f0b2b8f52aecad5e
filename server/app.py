"""The application: the only place that wires the parts together."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiojobs import Scheduler
from aiojobs.aiohttp import get_scheduler_from_app
from aiojobs.aiohttp import setup as setup_jobs

from .access.proxies import Proxies
from .api import asyncapi, bulk, catalogue, indicators, keys, metrics, openapi, rest, system, ws
from .api.address import PROXIES
from .api.admission import Admission
from .api.aside import THREADS, aside, executor
from .api.auth import Access
from .api.inquiry import INQUIRIES, Inquiries
from .api.load import Load
from .api.middlewares import serving
from .api.operations import SocketOperations
from .api.visitors import Visitors
from .bybit.client import BybitClient
from .bybit.credentials import Credentials, keep_checked
from .bybit.streams import Streams
from .errors import ExchangeError, TradingKeyRefused
from .market.answers import Answering
from .market.candlecache import CandleCache
from .market.checking import Checks
from .market.counts import Tally
from .market.feeds import SWEEP_S, Feeds
from .market.following import Following
from .market.history import History
from .market.listings import Listings
from .market.symbols import Symbols, check_form
from .metrics.requests import Requests
from .models import Candles, Kind, Reading, Topic
from .processes.neighbours import Neighbours
from .realtime.channels import Channels
from .realtime.hub import Hub
from .settings import IndicatorSettings, Settings
from .telemetry import get_logger
from .watchdog import Watchdog

log = get_logger(__name__)

FIRST_CHECK_S = 2.0
"""How long the start waits for word about the key, where one that can trade keeps the gateway from starting."""
KEY_LOOK_S = 0.5
LATE_SHARE = 0.25
"""Of a call's time: a flight older than this is late, and another one joins it."""


def create_app(
    settings: Settings,
    *,
    worker: int = 0,
    of: int = 1,
    descriptors: int | None = None,
    neighbours: Neighbours | None = None,
) -> web.Application:
    """The gateway as an aiohttp application; no I/O before it is started. The exchange's address has to be known.

    As number `worker` of that many it takes its share of the limits: ours, and the exchange's. `descriptors` is how
    many the system lets it have, None for any number; `neighbours` are the other workers, None without a
    supervisor.
    """
    if settings.rest_url is None:
        raise ValueError("the address of the simulator is not known: start it first and set bybit.rest_url")
    app = web.Application(middlewares=(serving(),), client_max_size=settings.server.body_bytes)
    app[keys.SETTINGS] = settings
    app[keys.ACCESS] = access = Access(settings.auth, bound_host=settings.server.host)
    app[keys.VISITORS] = visitors = Visitors(settings)
    app[keys.ADMISSION] = Admission(access, visitors)
    app[PROXIES] = Proxies(settings.server.proxies)
    app[INQUIRIES] = Inquiries()
    app[asyncapi.DOCUMENT] = asyncapi.document(settings)
    app[keys.LOAD] = Load(
        max_requests=settings.server.max_requests,
        max_sockets=settings.websocket.max_connections,
        max_strangers=settings.websocket.max_strangers,
        worker=worker,
        of=of,
        descriptors=descriptors,
    )
    app[keys.NEIGHBOURS], app[keys.REQUESTS], app[keys.WATCHDOG] = neighbours, Requests(), Watchdog()
    _wire_market(app, settings, settings.rest_url, share=1 / of)
    _wire_streams(app, settings, share=1 / of)
    _wire_realtime(app, settings)
    for table in (
        asyncapi.routes,
        bulk.routes,
        catalogue.routes,
        indicators.routes,
        metrics.routes,
        openapi.routes,
        rest.routes,
        system.routes,
        ws.routes,
    ):
        app.add_routes(table)
    openapi.describe(app, settings)
    setup_jobs(app, limit=None, wait_timeout=0, close_timeout=1.0, exception_handler=_job_failed)
    app.cleanup_ctx.extend((_watchdog, executor, _client, _feeds, _history, _streams, _hub, _key))
    app.on_shutdown.append(ws.drain)
    return app


def _wire_market(app: web.Application, settings: Settings, rest_url: str, *, share: float) -> None:
    client = BybitClient(settings.bybit, rest_url, refuse_trading_keys=settings.refuses_trading_keys, share=share)
    listings = Listings(client.fetch, settings.bybit.settle_coins)

    def held(topic: Topic) -> Candles | None:
        reading = feeds.in_hand(topic)
        return None if reading is None else reading.value

    tally = Tally()
    candles = CandleCache(client.klines, held, tally)

    async def fetch(topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """Klines from what is missing in the cache, the rest by listing or by itself."""
        klines = [topic for topic in topics if topic.kind is Kind.KLINE]
        rest_of = topics.difference(klines)
        readings: dict[Topic, Reading[Any]] = await listings.fetch(rest_of) if rest_of else {}
        readings.update(zip(klines, await asyncio.gather(*map(candles.fetch, klines)), strict=True))
        return readings

    reconcile_s = min(settings.freshness.reconcile_s, settings.freshness.stale_after_s)
    app[keys.CLIENT] = client
    app[keys.FEEDS] = feeds = Feeds(
        fetch,
        max_symbols=settings.freshness.max_symbols,
        late_s=settings.bybit.call_timeout_s * LATE_SHARE,
        reconcile_s=reconcile_s,
    )
    listings.attach(feeds)
    _wire_history(app, settings.indicators, tally)
    app[keys.FOLLOWING] = Following(feeds, listing_of=listings.listing_of, reconcile_s=settings.freshness.reconcile_s)
    app[keys.SYMBOLS] = Symbols(feeds)


def _wire_history(app: web.Application, indicators: IndicatorSettings, tally: Tally) -> None:
    feeds, client = app[keys.FEEDS], app[keys.CLIENT]
    app[keys.HISTORY] = History(
        feeds,
        client.klines,
        tally,
        max_candles=indicators.max_candles,
        max_bytes=indicators.max_candle_bytes,
    )
    app[keys.ANSWERING] = Answering(
        feeds,
        app[keys.HISTORY],
        lambda compute: aside(app, compute),
        threads=THREADS,
        max_names=indicators.max_names,
        max_candles=indicators.max_candles,
    )
    budget = client.guards.budget
    app[keys.CHECKS] = Checks(feeds, client.klines, tally, is_at_ease=lambda: budget.is_at_ease(time.monotonic()))


def _wire_streams(app: web.Application, settings: Settings, *, share: float) -> None:
    """The exchange's streams, where their address is known: that of a simulator elsewhere has to be given."""
    app[keys.STREAMS] = None
    public_url, private_url = settings.public_stream_url, settings.private_stream_url
    if public_url is None or private_url is None:
        return
    client, following = app[keys.CLIENT], app[keys.FOLLOWING]
    app[keys.STREAMS] = Streams(
        public_url,
        private_url,
        category=settings.bybit.category.value,
        now_ms=client.exchange_now_ms,
        keys=lambda: client.keys,
        offer=following.push,
        changed=following.changed,
        share=share,
        key_retry_s=settings.bybit.key_retry_s,
        ban_s=settings.bybit.ban_s,
    )


def _wire_realtime(app: web.Application, settings: Settings) -> None:
    app[keys.CHANNELS] = channels = Channels(
        app[keys.FEEDS],
        app[keys.ANSWERING],
        exchange=settings.exchange,
        category=settings.bybit.category.value,
        epoch=app[keys.LOAD].epoch,
        stale_after_s=settings.freshness.stale_after_s,
        check_form=check_form,
    )
    app[keys.HUB] = hub = Hub(
        channels,
        live_poll_s=settings.freshness.live_poll_s,
        stale_after_s=settings.freshness.stale_after_s,
        heartbeat_s=settings.websocket.heartbeat_s,
    )
    app[keys.FEEDS].watch(hub.changed)
    app[keys.FEEDS].shown_by(hub.shows)
    channels.watch(hub.renewed)
    category, symbols = settings.bybit.category.value, app[keys.SYMBOLS]
    app[keys.OPERATIONS] = SocketOperations(
        app[keys.ADMISSION],
        app[keys.VISITORS],
        channels,
        hub,
        category=category,
        known=lambda symbol: symbols.known(symbol, category),
        websocket=settings.websocket,
        freshness=settings.freshness,
    )


async def _watchdog(app: web.Application) -> AsyncIterator[None]:
    """Watch the loop for as long as it serves."""
    app[keys.WATCHDOG].start()
    yield
    app[keys.WATCHDOG].stop()


async def _client(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[keys.CLIENT].close()


async def _feeds(app: web.Application) -> AsyncIterator[None]:
    """Ask for the list of symbols before anybody waits for it; forget idle feeds from time to time."""
    feeds = app[keys.FEEDS]
    app[keys.SYMBOLS].known("", app[keys.SETTINGS].bybit.category.value)
    sweeper = asyncio.create_task(_sweep(feeds, app[keys.HISTORY]), name="sweeper")
    yield
    sweeper.cancel()
    await asyncio.wait({sweeper})
    await feeds.close()


async def _sweep(feeds: Feeds, history: History) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        feeds.sweep(force=True)
        history.trim()


async def _history(app: web.Application) -> AsyncIterator[None]:
    """Check from time to time what is held of candles; end the pages that are under way."""
    checker = asyncio.create_task(app[keys.CHECKS].run(), name="checker of candles")
    yield
    checker.cancel()
    await asyncio.wait({checker})
    await app[keys.ANSWERING].close()
    await app[keys.HISTORY].close()


async def _streams(app: web.Application) -> AsyncIterator[None]:
    """Keep by streams what is wanted; without them everything is called for."""
    if (streams := app[keys.STREAMS]) is None:
        yield
        return
    await streams.start()
    tasks = {
        asyncio.create_task(app[keys.FOLLOWING].run(streams), name="following"),
        asyncio.create_task(_renew_key(app[keys.CLIENT], streams), name="key of the streams"),
    }
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await streams.close()


async def _renew_key(client: BybitClient, streams: Streams) -> None:
    """Have the streams use another key as soon as there is one, and none that must not be used."""
    former = client.keys
    while True:
        await asyncio.sleep(KEY_LOOK_S)
        if client.keys != former:
            former = client.keys
            streams.rekey()


async def _hub(app: web.Application) -> AsyncIterator[None]:
    scheduler = get_scheduler_from_app(app)
    assert scheduler is not None, "aiojobs is set up before the hub"
    await app[keys.HUB].start(scheduler)
    yield


async def _key(app: web.Application) -> AsyncIterator[None]:
    """Keep an eye on what the key may do. Raises TradingKeyRefused if it is known in time that it must not be used."""
    if not app[keys.CLIENT].has_credentials:
        yield
        return
    credentials = app[keys.CLIENT].credentials
    checker = asyncio.create_task(keep_checked(credentials), name="key checker")
    try:
        if app[keys.SETTINGS].refuses_trading_keys:
            await _first_check(credentials)
        yield
    finally:
        checker.cancel()
        await asyncio.wait({checker})


async def _first_check(credentials: Credentials) -> None:
    try:
        async with asyncio.timeout(FIRST_CHECK_S):
            await credentials.check()
    except TradingKeyRefused:
        raise
    except (ExchangeError, TimeoutError):
        pass  # it serves the market meanwhile; the account waits until the key is known


def _job_failed(_: Scheduler, context: dict[str, Any]) -> None:
    log.error("job_crashed", job=str(context.get("job")), exc_info=context.get("exception"))
