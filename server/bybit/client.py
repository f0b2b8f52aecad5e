"""BybitClient: pybit behind executors. Each call is offloaded, bounded, logged once, and returns typed models."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from pybit.unified_trading import HTTP

from ..errors import (
    BadAnswer,
    ClockSkew,
    CredentialsMissing,
    ExchangeError,
)
from ..models import CandleRow, Instruments, KeyInfo, Kind, PositionRows, Reading, Topic
from ..settings import BybitSettings, Secret
from ..telemetry import get_logger
from . import parsing
from .budget import ACCOUNT_ENDPOINTS
from .calls import Calls
from .clock import ExchangeClock, Offset
from .credentials import Credentials
from .failures import asked, empty, printable
from .guards import Guards
from .transport import CONNECT_TIMEOUT_S, BoundedSession

log = get_logger(__name__)

T = TypeVar("T")

THREADS = {"tickers": 4, "position": 4, "wallet": 2, "kline": 4, "instruments": 2, "time": 1, "key": 1}
"""Threads per endpoint. Coalescing keeps calls to tens a second; a call takes a few milliseconds of a thread."""

MAX_PAGES = 50

CLOCK_PATIENCE_S = 1.0
"""How long an answer waits for the exchange's clock that it is to be compared with."""


class Page(NamedTuple):
    """A parsed result, the exchange's time of answering in ms, and what that says of the clocks."""

    value: Any
    time_ms: int
    offset: Offset | None = None


class _Session(HTTP):  # type: ignore[misc]  # pybit has no types
    """pybit's session, signing with the exchange's time, and without its repr.

    That shows the secret, and every bound method's repr holds it.
    """

    offset_ms = 0
    """What our clock lacks to the exchange's."""

    def __repr__(self) -> str:
        return "Session(***)"

    def _prepare_headers(
        self, payload: str, recv_window: int, content_type: str = "application/json"
    ) -> dict[str, str]:
        """As in pybit, but for the time."""
        timestamp = round(time.time() * 1000) + self.offset_ms
        return {
            "Content-Type": content_type,
            "X-BAPI-API-KEY": self.api_key,
            "X-BAPI-SIGN": self._auth(payload=payload, recv_window=recv_window, timestamp=timestamp),
            "X-BAPI-SIGN-TYPE": "2",
            "X-BAPI-TIMESTAMP": str(timestamp),
            "X-BAPI-RECV-WINDOW": str(recv_window),
        }


class BybitClient:
    """The account and the market as typed readings; one pybit session, one small pool of threads per endpoint.

    Nothing here runs on the loop but bookkeeping, and no call is repeated here: who wants another asks again.
    With `refuse_trading_keys` the account is asked for nothing before its key is known to be unable to write.
    """

    def __init__(
        self,
        settings: BybitSettings,
        rest_url: str,
        *,
        refuse_trading_keys: bool,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        exchange_clock: ExchangeClock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._numbers = itertools.count(1)
        self._exchange_clock = exchange_clock or ExchangeClock()
        self._measuring: asyncio.Task[None] | None = None
        self.has_credentials = settings.api_key is not None and settings.api_secret is not None
        self._clock_is_suspect = False
        self.guards = Guards(
            THREADS,
            probe_s=settings.call_timeout_s,
            share=share,
            ban_s=settings.ban_s,
            key_retry_s=settings.key_retry_s,
            clock=clock,
        )
        self.calls = Calls()
        self._listed: dict[tuple[str, str | None], frozenset[str]] = {}
        self.credentials = Credentials(self.key, refuse_trading_keys=refuse_trading_keys, clock=clock)
        self._rest_url = rest_url
        self._keys: tuple[Secret | None, ...] = (settings.api_key, settings.api_secret)
        self._http = self._session(settings.api_key, settings.api_secret)
        self._fetchers: dict[Kind, Callable[[Topic], Awaitable[Page]]] = {
            Kind.TICKER: self._ticker,
            Kind.TICKERS: self._tickers,
            Kind.POSITION: self._position,
            Kind.POSITIONS: self._positions,
            Kind.WALLET: self._wallet,
            Kind.INSTRUMENTS: self._instruments,
        }

    def _session(self, key: Secret | None, secret: Secret | None) -> HTTP:
        timeout_s = self._settings.call_timeout_s
        session = _Session(
            api_key=key.reveal() if key else None,
            api_secret=secret.reveal() if secret else None,
            timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
            recv_window=self._settings.recv_window_ms,
            retry_codes={"none"},  # an empty set brings pybit's own back, and it sleeps in the thread
            max_retries=1,  # 0 raises UnboundLocalError
            return_response_headers=True,
        )
        headers = session.client.headers
        session.client = BoundedSession(connections=sum(THREADS.values()))
        session.client.headers.update(headers)
        session.endpoint = self._rest_url
        return session

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """A reading of each of `topics`, asked for now. Raises ExchangeError where one could not be had."""
        readings = await asyncio.gather(*(self._read(topic) for topic in topics))
        return dict(zip(topics, readings, strict=True))

    async def klines(self, topic: Topic, limit: int, *, end_ms: int | None = None) -> Reading[tuple[CandleRow, ...]]:
        """The last `limit` candles (1 to 1,000) of a kline topic, oldest first, the forming one among them.

        With `end_ms` the last of those that opened by then.
        """
        symbol = topic.symbol
        call = self._call(
            "kline",
            self._http.get_kline,
            lambda raw: parsing.parse_kline(raw, symbol),
            category=topic.category,
            symbol=symbol,
            interval=topic.interval,
            limit=limit,
            end=end_ms,
        )
        return await self._timed(call)

    async def server_time_ms(self) -> int:
        """The exchange's clock."""
        return int((await self._time()).value)

    async def _time(self) -> Page:
        return await self._call("time", self._http.get_server_time, parsing.parse_server_time)

    async def key(self) -> Reading[KeyInfo]:
        """What the key may do, asked for now. Raises ExchangeError."""
        return await self._timed(self._call("key", self._http.get_api_key_information, parsing.parse_key))

    async def rekey(self, api_key: Secret, api_secret: Secret) -> None:
        """Use another key from now on, if the exchange knows it and it may be used.

        Raises ExchangeError otherwise, and goes on with the one before, which no breaker holds that against.
        """
        http, asked_at, timeout_s = self._session(api_key, api_secret), self._clock(), self._settings.call_timeout_s
        http.offset_ms = self._http.offset_ms
        in_use = self._keys[:2]
        self._keys = (*in_use, api_key, api_secret)  # masked in what is said, whichever of them it is about
        page = await self.guards.pools["key"].run(
            lambda: self._ask("key", http.get_api_key_information, parsing.parse_key, {}), timeout_s=timeout_s
        )
        self.credentials.replace(Reading(page.value, asked_at, self._clock(), page.time_ms))
        self._keys = (api_key, api_secret, *in_use)
        former, self._http = self._http, http
        former.client.close()
        self.guards.breakers.mend_account(self._clock())

    @property
    def keys(self) -> tuple[Secret, Secret] | None:
        """The API key and secret in use, None where there is none, or while it must not be used."""
        api_key, api_secret = self._keys[:2]
        if api_key is None or api_secret is None or not self.credentials.is_usable:
            return None
        return api_key, api_secret

    def exchange_now_ms(self) -> float:
        """The exchange's present time, as far as it is known."""
        return self._exchange_clock.now_ms() + (self.clock_offset_ms or 0)

    async def _read(self, topic: Topic) -> Reading[Any]:
        return await self._timed(self._fetchers[topic.kind](topic))

    async def _timed(self, pages: Awaitable[Page]) -> Reading[Any]:
        asked_at = self._clock()
        page = await pages
        return Reading(value=page.value, asked_at=asked_at, arrived_at=self._clock(), exchange_time_ms=page.time_ms)

    async def _ticker(self, topic: Topic) -> Page:
        symbol = topic.symbol
        return await self._call(
            "tickers",
            self._http.get_tickers,
            lambda raw: parsing.parse_ticker(raw, symbol),
            category=topic.category,
            symbol=symbol,
        )

    async def _tickers(self, topic: Topic) -> Page:
        return await self._call("tickers", self._http.get_tickers, parsing.parse_tickers, category=topic.category)

    async def _position(self, topic: Topic) -> Page:
        symbol = topic.symbol
        return await self._call(
            "position",
            self._http.get_positions,
            lambda raw: parsing.parse_position(raw, symbol),
            category=topic.category,
            symbol=symbol,
        )

    async def _positions(self, topic: Topic) -> Page:
        """Every open position, all pages: linear ones are listed by the coin they settle in, the topic's or each."""
        coins: tuple[str | None, ...] = self._settings.settle_coins if topic.category == "linear" else (None,)
        if topic.symbol:
            coins = (topic.symbol,)
        listings = await asyncio.gather(*(self._position_pages(topic.category, coin) for coin in coins))
        rows = parsing.join_positions(page.value for listing in listings for page in listing)
        open_rows: PositionRows = tuple(row for row in rows if row.is_open)
        return Page(open_rows, min(page.time_ms for listing in listings for page in listing))

    async def _position_pages(self, category: str, settle_coin: str | None) -> list[Page]:
        """The pages of one listing, and what each symbol says itself that was in the last one and is in none of them.

        A position may move to a page that has been read already while the next one is: that is no word of its end.
        """
        pages = await self._pages(
            "position",
            self._http.get_positions,
            parsing.parse_position_page,
            category=category,
            settleCoin=settle_coin,
            limit=200,
        )
        former = self._listed.get((category, settle_coin), frozenset())
        if sum(bool(page.value) for page in pages) > 1 and (gone := former - _open_symbols(pages)):
            topics = [Topic(Kind.POSITION, symbol, category=category) for symbol in sorted(gone)]
            pages += await asyncio.gather(*map(self._position, topics))
        self._listed[category, settle_coin] = _open_symbols(pages)
        return pages

    async def _wallet(self, _: Topic) -> Page:
        return await self._call("wallet", self._http.get_wallet_balance, parsing.parse_wallet, accountType="UNIFIED")

    async def _instruments(self, topic: Topic) -> Page:
        pages = await self._pages(
            "instruments",
            self._http.get_instruments_info,
            parsing.parse_instrument_page,
            category=topic.category,
            limit=1000,
        )
        instruments: Instruments = {}
        for page in pages:
            instruments.update(page.value)
        if not instruments:
            raise BadAnswer("the exchange's instrument list is empty")
        return Page(instruments, pages[-1].time_ms)

    async def _pages(self, endpoint: str, method: Any, parse: Any, **query: Any) -> list[Page]:
        """Every page of a listing. Bybit's cursor is URL-encoded already, and may be there on the last page too."""
        pages: list[Page] = []
        cursor: str | None = None
        while len(pages) < MAX_PAGES:
            page = await self._call(endpoint, method, parse, cursor=cursor, **query)
            rows, following = page.value
            pages.append(Page(rows, page.time_ms))
            if not rows or following in ("", cursor):
                return pages
            cursor = following
        raise BadAnswer(f"the exchange's listing does not end after {MAX_PAGES} pages")

    async def _call(self, endpoint: str, method: Any, parse: Callable[[Any], T], **query: Any) -> Page:
        """One call to pybit in `endpoint`'s pool; logs it once, whatever becomes of it. Raises ExchangeError."""
        timeout_s = self._settings.call_timeout_s
        if endpoint in ACCOUNT_ENDPOINTS:
            await self._prepare_account(endpoint)
        await self._admit(endpoint, timeout_s)
        number, started = next(self._numbers), self._clock()
        outcome, said = "crashed", None
        try:
            page: Page = await self.guards.run(
                endpoint, lambda: self._ask(endpoint, method, parse, query), timeout_s=timeout_s
            )
            if endpoint != "time":
                await self._compare_clocks(page.offset)
            outcome = "ok"
            return page
        except ExchangeError as error:
            outcome, said = error.reason, self._said(error)
            self._clock_is_suspect |= isinstance(error, ClockSkew)
            empty(error)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            duration_s = self._clock() - started
            self.calls.ended(endpoint, outcome, duration_s)
            log.log(
                10 if outcome == "ok" else 30,
                "upstream_called",
                call=number,
                endpoint=endpoint,
                symbol=query.get("symbol"),
                outcome=outcome,
                said=said,
                duration_ms=round(duration_s * 1000, 1),
            )

    async def _admit(self, endpoint: str, timeout_s: float) -> None:
        """Return when the guards let a call through. Raises ExchangeError, and counts what they refuse."""
        try:
            await self.guards.admit(endpoint, timeout_s=timeout_s)
        except ExchangeError as error:
            self.calls.refused(endpoint, error.reason)
            raise

    async def _prepare_account(self, endpoint: str) -> None:
        """Return when a call may use the key and its signature will hold. Raises ExchangeError."""
        if not self.has_credentials:
            raise CredentialsMissing("the gateway has no API key: only market data is served")
        if endpoint != "key":
            await self.credentials.admit()
        if self._clock_is_suspect:
            await self._correct_clock()

    def _said(self, error: ExchangeError) -> str | None:
        """What the exchange wrote of its refusal, for the log; it likes to repeat the key."""
        message = str(getattr(error.__cause__, "message", ""))
        for secret in self._keys:
            if secret is not None:
                message = message.replace(secret.reveal(), "***")
        return printable(message) or None

    @property
    def clock_offset_ms(self) -> int | None:
        """What our clock lacks to the exchange's; None before it was measured."""
        return self._exchange_clock.offset_ms

    async def _compare_clocks(self, offset: Offset | None) -> None:
        """Raise BadAnswer where an answer is of another time than the exchange's clock: it comes from a cache."""
        clock = self._exchange_clock
        is_near = clock.agrees(offset)
        measurement = self._measurement() if clock.is_due or not is_near else None
        if is_near or offset is None or measurement is None:
            return
        await asyncio.wait({measurement}, timeout=CLOCK_PATIENCE_S)
        if clock.offset_ms is None:
            clock.set(offset)  # the first answer of all, and the exchange's clock cannot be asked
        elif not clock.agrees(offset):
            apart_s = (offset.ms - clock.offset_ms) / 1000
            raise BadAnswer(f"the exchange's answer is of another time: {apart_s:+.0f} s from its clock")

    def _measurement(self) -> "asyncio.Task[None]":
        """The question for the exchange's clock that is under way, or a new one; whoever wants to know shares it."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure_clock(), name="exchange clock")
        return self._measuring

    async def _measure_clock(self) -> None:
        try:
            page = await self._time()
        except ExchangeError:
            return  # logged by the call; who waits for it sees that nothing has changed
        if page.offset is not None:
            self._exchange_clock.set(page.offset)

    async def _correct_clock(self) -> None:
        """Measure the exchange's clock against ours, and sign with its time from now on. Raises ExchangeError."""
        page = await self._time()
        if page.offset is not None:
            self._exchange_clock.set(page.offset)
            self._http.offset_ms = round(page.offset.ms)
        self._clock_is_suspect = False
        log.warning("clock_corrected", offset_ms=self._http.offset_ms)

    def _ask(self, endpoint: str, method: Any, parse: Callable[[Any], T], query: dict[str, Any]) -> Page:
        """In the thread: the call and its parsing."""
        sent_ms = self._exchange_clock.now_ms()
        answer, headers = asked(method, query)
        self.guards.budget.learn(endpoint, headers)
        time_ms = int(answer["time"])
        return Page(parse(answer["result"]), time_ms, self._exchange_clock.offset_of(time_ms, sent_ms))

    async def close(self) -> None:
        """Take no more calls; connections at rest are closed, threads that hang are left to their deadline."""
        await self.credentials.close()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})
        self.guards.close()
        self._http.client.close()


def _open_symbols(pages: Iterable[Page]) -> frozenset[str]:
    return frozenset(row.position.symbol for page in pages for row in page.value if row.is_open)
