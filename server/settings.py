"""The settings: frozen, typed, checked values and what follows from them. Where they come from is configuration's.

Every number names its unit, and its type carries the range that is allowed, so that the loader can say it in words.
"""

from __future__ import annotations

import enum
import hmac
import ipaddress
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from .access.tokens import TokenEntry, TokenHash, entry_of


class Profile(enum.StrEnum):
    """Where the gateway runs; it chooses the defaults of host, exchange and log format."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Environment(enum.StrEnum):
    """The exchange behind the gateway, named in every answer so that invented money is never taken for real."""

    SIMULATOR = "simulator"
    TESTNET = "testnet"
    DEMO = "demo"
    MAINNET = "mainnet"


class Category(enum.StrEnum):
    """Bybit's product category of the positions."""

    LINEAR = "linear"
    INVERSE = "inverse"


class LogLevel(enum.StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(enum.StrEnum):
    """How a log line looks: for eyes, or for machines."""

    CONSOLE = "console"
    JSON = "json"


class Secret:
    """A value that shows itself only through `reveal`: no repr, format, pickle or encoder gives it away."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a hash would compare in a time that depends on the value

    def __init__(self, value: str) -> None:
        if not value:
            raise ValueError("a secret cannot be empty")
        self._value = value

    def reveal(self) -> str:
        """Give the value; call it only where the value is used."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, others = (secret._value.encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, others)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


Bytes = Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
NoneOrCount = Annotated[int, Meta(ge=0, le=1_000_000)]
"""0 is no limit."""
Seconds = Annotated[float, Meta(ge=0.01, le=3600)]
HOST_AND_PORT = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?"
HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:%-]+\Z", description="an address or a host name")]
Origin = Annotated[str, Meta(pattern=rf"^https?://{HOST_AND_PORT}\Z", description="an origin like https://my.domain")]
HostHeader = Annotated[
    str, Meta(pattern=rf"^{HOST_AND_PORT}\Z", description="a host name, with :port if only that port is meant")
]
RestUrl = Annotated[
    str,
    Meta(pattern=rf"^https?://{HOST_AND_PORT}/?\Z", description="http:// or https://, host and port, without a path"),
]
StreamUrl = Annotated[
    str, Meta(pattern=rf"^wss?://{HOST_AND_PORT}/?\Z", description="ws:// or wss://, host and port, without a path")
]
Coin = Annotated[str, Meta(pattern=r"^[A-Z0-9]{2,20}\Z", description="a coin like USDT")]
ProxyNetwork = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?\Z",
        description="an address or a network like 10.1.0.0/16, no bits beside its mask, and not all addresses",
    ),
]
FilePath = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,4096}\Z", description="the path of a file in PEM")]


class KeyPair(Struct, frozen=True, kw_only=True):
    """What TLS is served with, as the two files held it when they were read: certificates in PEM, and their key."""

    chain: str
    key: Secret


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Listening, and the limits of plain HTTP. Port 0 takes any free one.

    With a `key_pair` TLS is spoken, and nothing else. It holds what the files named held, not where they are: so every
    worker serves the pair that was checked, and a renewed one makes other settings, which a reload notices.
    """

    host: HostName = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    backlog: Annotated[int, Meta(ge=1, le=65535)] = 2048
    keepalive_s: Seconds = 5.0
    send_timeout_s: Seconds = 30.0
    max_requests: Count = 1000
    requests_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 100.0
    requests_burst: Count = 200
    body_bytes: Bytes = 65536
    body_timeout_s: Seconds = 5.0
    shutdown_s: Seconds = 5.0
    hang_s: Seconds = 20.0
    proxies: tuple[ProxyNetwork, ...] = ()
    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    key_pair: KeyPair | None = None


class BybitSettings(Struct, frozen=True, kw_only=True):
    """The exchange. `rest_url` and `stream_url` replace the addresses of the environment; None keeps them."""

    environment: Environment = Environment.SIMULATOR
    api_key: Secret | None = None
    api_secret: Secret | None = None
    category: Category = Category.LINEAR
    settle_coins: Annotated[tuple[Coin, ...], Meta(min_length=1, max_length=20)] = ("USDT", "USDC")
    call_timeout_s: Annotated[float, Meta(ge=0.05, le=120)] = 10.0
    rest_url: RestUrl | None = None
    stream_url: StreamUrl | None = None
    recv_window_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5000
    ban_s: Seconds = 600.0
    key_retry_s: Seconds = 60.0
    allow_trading_keys: bool = False


class FreshnessSettings(Struct, frozen=True, kw_only=True):
    """How old a reading may be, and how often one is made anew."""

    max_age_s: Seconds = 1.0
    stale_after_s: Seconds = 3.0
    live_poll_s: Seconds = 0.5
    reconcile_s: Seconds = 3.0
    max_symbols: Annotated[int, Meta(ge=1, le=10_000)] = 200


class WebSocketSettings(Struct, frozen=True, kw_only=True):
    """Pace and limits of one socket, and how many there may be."""

    interval_s: Seconds = 5.0
    min_interval_s: Seconds = 0.1
    max_interval_s: Seconds = 60.0
    max_connections: Count = 10_000
    max_per_address: NoneOrCount = 1000
    max_per_token: NoneOrCount = 5000
    max_strangers: Count = 200
    auth_timeout_s: Seconds = 5.0
    heartbeat_s: Seconds = 20.0
    send_buffer_bytes: Bytes = 65536
    high_water_bytes: Bytes = 65536
    slow_limit_bytes: Bytes = 1_048_576
    slow_limit_s: Seconds = 5.0
    max_subscriptions: Annotated[int, Meta(ge=1, le=10_000)] = 500
    message_bytes: Annotated[int, Meta(ge=256, le=1_048_576)] = 16384
    messages_per_s: Annotated[int, Meta(ge=1, le=10_000)] = 10


class IndicatorSettings(Struct, frozen=True, kw_only=True):
    """How much history an indicator may see, how much of it is held, and how much one question may ask."""

    max_candles: Annotated[int, Meta(ge=1000, le=20_000)] = 5000
    max_candle_bytes: Annotated[int, Meta(ge=1_048_576, le=4_294_967_296)] = 67_108_864
    max_results: Annotated[int, Meta(ge=1, le=1000)] = 500
    max_names: Annotated[int, Meta(ge=1, le=500)] = 50


class AuthSettings(Struct, frozen=True, kw_only=True):
    """Who may ask. Only hashes of tokens are kept; `token_secrets` are the plain ones that the logs must not show."""

    tokens: tuple[TokenHash | TokenEntry, ...] = ()
    origins: tuple[Origin, ...] = ()
    cors_origins: tuple[Origin, ...] = ()
    hosts: tuple[HostHeader, ...] = ()
    max_failures: NoneOrCount = 20
    failures_window_s: Seconds = 60.0
    token_secrets: tuple[Secret, ...] = ()

    @property
    def entries(self) -> tuple[TokenEntry, ...]:
        """The tokens as tables, with names and rights."""
        return tuple(map(entry_of, self.tokens))


class LogSettings(Struct, frozen=True, kw_only=True):
    """What is logged, and how it looks."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.CONSOLE


class MetricsSettings(Struct, frozen=True, kw_only=True):
    """What `/metrics` tells. With `symbols` each symbol's readings have series of their own."""

    symbols: bool = False


class RedisSettings(Struct, frozen=True, kw_only=True):
    """The shared bus, which is not built yet: the loader refuses any address."""

    url: Secret | None = None


REST_URLS = {
    Environment.TESTNET: "https://api-testnet.bybit.com",
    Environment.DEMO: "https://api-demo.bybit.com",
    Environment.MAINNET: "https://api.bybit.com",
}
PUBLIC_STREAM_URLS = {
    Environment.TESTNET: "wss://stream-testnet.bybit.com",
    Environment.DEMO: "wss://stream.bybit.com",  # the demo exchange has mainnet's market data and no stream of its own
    Environment.MAINNET: "wss://stream.bybit.com",
}
PRIVATE_STREAM_URLS = {**PUBLIC_STREAM_URLS, Environment.DEMO: "wss://stream-demo.bybit.com"}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the gateway was told. Holds for the life of the process; `Settings()` is bare development."""

    profile: Profile = Profile.DEVELOPMENT
    server: ServerSettings = ServerSettings()
    bybit: BybitSettings = BybitSettings()
    freshness: FreshnessSettings = FreshnessSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    indicators: IndicatorSettings = IndicatorSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    redis: RedisSettings = RedisSettings()

    @property
    def exchange(self) -> str:
        """The name that every answer and snapshot carries."""
        return self.bybit.environment.value

    @property
    def has_keys(self) -> bool:
        """Whether account data can be asked for; without keys there is only market data."""
        return self.bybit.api_key is not None and self.bybit.api_secret is not None

    @property
    def real_account(self) -> bool:
        """Whether what is served belongs to somebody: keys of anything but a simulator on this machine."""
        return self.has_keys and not (self.bybit.environment is Environment.SIMULATOR and self.exchange_is_local)

    @property
    def refuses_trading_keys(self) -> bool:
        """Whether a key that can do more than read is not used: in production, unless that is allowed."""
        return self.profile is Profile.PRODUCTION and not self.bybit.allow_trading_keys

    @property
    def exposes_account(self) -> bool:
        """Whether others could read what belongs to somebody, without a token."""
        return self.real_account and not self.is_loopback and not self.auth.tokens

    @property
    def exchange_is_local(self) -> bool:
        """Whether the exchange is on this machine: the simulator that we start, or a loopback address."""
        given = [url for url in (self.bybit.rest_url, self.bybit.stream_url) if url is not None]
        is_ours = self.bybit.environment is Environment.SIMULATOR or self.bybit.rest_url is not None
        return is_ours and all(is_loopback(urlsplit(url).hostname) for url in given)

    @property
    def starts_simulator(self) -> bool:
        """Whether the gateway starts its own simulator: asked for, and not already running at a given address."""
        return self.bybit.environment is Environment.SIMULATOR and self.bybit.rest_url is None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return is_loopback(self.server.host)

    @property
    def speaks_in_clear(self) -> bool:
        """Whether tokens may cross a network unencrypted, for all that is known: no TLS, and no proxy that has it."""
        return not (self.is_loopback or self.server.key_pair or self.server.proxies) and bool(self.auth.tokens)

    @property
    def rest_url(self) -> str | None:
        """The REST address without a final slash, or None for a simulator that is still to be started."""
        return _address(self.bybit.rest_url, REST_URLS.get(self.bybit.environment))

    @property
    def public_stream_url(self) -> str | None:
        """The address of the market streams without a path, or None where there is none yet."""
        return _address(self.bybit.stream_url, PUBLIC_STREAM_URLS.get(self.bybit.environment))

    @property
    def private_stream_url(self) -> str | None:
        """The address of the account stream without a path, or None where there is none yet."""
        return _address(self.bybit.stream_url, PRIVATE_STREAM_URLS.get(self.bybit.environment))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every plain secret the process knows, for the log to redact."""
        pair = self.server.key_pair
        given = (self.bybit.api_key, self.bybit.api_secret, self.redis.url, None if pair is None else pair.key)
        return (*(secret for secret in given if secret is not None), *self.auth.token_secrets)


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can be behind `host`; a name other than localhost counts as elsewhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _address(given: str | None, usual: str | None) -> str | None:
    return given.rstrip("/") if given is not None else usual
