"""Every way the gateway says no: one tree of errors, and one table of what the outside sees of each.

GatewayError
├── InvalidRequest        the client asked for something that cannot be
├── Unauthenticated · Forbidden · BadHost
├── NotFound · UnknownSymbol · MethodNotAllowed · TooLarge · TooLate
├── InsufficientCandles · RateLimited · Overloaded
├── TooManyConnections · MessageFlood · TooSlow · GoingAway      of sockets only
├── InternalError         a bug of ours: named, never explained to the outside
└── ExchangeError         Bybit did not give what was asked
    ├── ExchangeTimeout
    └── ExchangeUnreachable · BadAnswer · ExchangeBusy · RateExceeded · AddressBanned
        CredentialsMissing · CredentialsRefused · ClockSkew · CallRefused · StaleReading
                             └── TradingKeyRefused     by us: the key can do more than read
"""

from typing import ClassVar, NamedTuple


class GatewayError(Exception):
    """The root. `detail` is a sentence for the client and never holds a secret or an internal name."""

    temporary: ClassVar[bool] = False

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class InvalidRequest(GatewayError):
    """A parameter is wrong; `parameter` completes the code `invalid_*` and the detail says what is allowed."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail)
        self.parameter = parameter


class Unauthenticated(GatewayError):
    """No token where one is needed, or a wrong one."""


class Forbidden(GatewayError):
    """Known, but not allowed here: a foreign Origin."""


class BadHost(GatewayError):
    """The Host header names no host of ours (DNS rebinding)."""


class NotFound(GatewayError):
    """No such route."""


class UnknownSymbol(GatewayError):
    """The exchange's instrument list has no such symbol."""


class MethodNotAllowed(GatewayError):
    """The route exists, the method does not."""

    def __init__(self, detail: str, *, allowed: str) -> None:
        super().__init__(detail)
        self.allowed = allowed


class TooLarge(GatewayError):
    """A request body or a message over its limit."""


class TooLate(GatewayError):
    """A request body that did not arrive in time."""


class InsufficientCandles(GatewayError):
    """Too few candles to compute anything from."""


class Quota(NamedTuple):
    """A limit in the words of the RateLimit fields: so many in so long a window."""

    name: str
    most: int
    window_s: float


class RateLimited(GatewayError):
    """This client asks too often."""

    temporary = True

    def __init__(self, detail: str, *, retry_after_s: float | None = None, quota: Quota | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.quota = quota


class Overloaded(GatewayError):
    """A bound of this gateway is reached: requests in progress, or symbols tracked."""

    temporary = True


class TooManyConnections(GatewayError):
    """The socket limit is reached."""

    temporary = True


class MessageFlood(GatewayError):
    """A socket sends more messages a second than it may."""


class TooSlow(GatewayError):
    """A socket's reader cannot keep up even with conflation."""

    temporary = True


class TooManySubscriptions(GatewayError):
    """A socket has as many subscriptions as it may have."""


class GoingAway(GatewayError):
    """The gateway stops or restarts."""

    temporary = True


class InternalError(GatewayError):
    """A bug of ours; the log has the rest under the same request id."""


class ExchangeError(GatewayError):
    """Bybit did not answer what was asked. `reason` names the kind for people and machines."""

    temporary = True
    reason: ClassVar[str] = "exchange_error"


class ExchangeTimeout(ExchangeError):
    """No whole answer within the call's time."""

    reason = "timeout"


class ExchangeUnreachable(ExchangeError):
    """No connection, or one that broke: DNS, TCP, TLS."""

    reason = "unreachable"


class BadAnswer(ExchangeError):
    """An answer that cannot be believed: not JSON, not the shape or the symbol asked for, too large."""

    reason = "bad_answer"


class ExchangeBusy(ExchangeError):
    """Bybit says that it is overloaded or restarting: 429, 5xx, 10000, 10016."""

    reason = "busy"


class RateExceeded(ExchangeError):
    """Too many calls for this account: 10006."""

    reason = "rate_exceeded"


class AddressBanned(ExchangeError):
    """HTTP 403: too many calls from this address, or a region that Bybit does not serve."""

    reason = "address_banned"


class CredentialsMissing(ExchangeError):
    """The gateway has no API key: market data only."""

    temporary = False
    reason = "credentials_missing"


class CredentialsRefused(ExchangeError):
    """Bybit refuses the key: unknown, wrong signature, no permission, wrong address, expired."""

    temporary = False
    reason = "credentials_refused"


class TradingKeyRefused(CredentialsRefused):
    """The gateway refuses the key: it can trade or withdraw, and bybit.allow_trading_keys is not set."""


class ClockSkew(ExchangeError):
    """The clocks of gateway and exchange differ by more than recv_window allows: 10002."""

    reason = "clock_skew"


class CallRefused(ExchangeError):
    """Any other retCode."""

    reason = "refused"


class StaleReading(ExchangeError):
    """There is a reading, but the client asked for a fresh one or none."""

    reason = "stale"


class Outcome(NamedTuple):
    """What the outside sees of an error: HTTP status, code, title, and a socket's close code (None: it lives on)."""

    status: int
    code: str
    title: str
    close_code: int | None = None


UNAVAILABLE = Outcome(503, "upstream_unavailable", "The exchange gives no answer")

OUTCOMES: dict[type[GatewayError], Outcome] = {
    InvalidRequest: Outcome(400, "invalid_", "Bad parameter", 4400),
    Unauthenticated: Outcome(401, "unauthenticated", "A token is needed", 4401),
    Forbidden: Outcome(403, "forbidden", "Not allowed", 4403),
    NotFound: Outcome(404, "not_found", "No such route"),
    UnknownSymbol: Outcome(404, "unknown_symbol", "Unknown symbol", 4404),
    MethodNotAllowed: Outcome(405, "method_not_allowed", "Method not allowed"),
    TooLate: Outcome(408, "too_late", "The body took too long"),
    TooLarge: Outcome(413, "too_large", "Too large", 1009),
    BadHost: Outcome(421, "bad_host", "Unknown host"),
    TooManySubscriptions: Outcome(429, "too_many_subscriptions", "Too many subscriptions", 4429),
    InsufficientCandles: Outcome(422, "insufficient_candles", "Too few candles"),
    RateLimited: Outcome(429, "rate_limited", "Too many requests", 4429),
    TooManyConnections: Outcome(429, "too_many_connections", "Too many connections", 4429),
    MessageFlood: Outcome(429, "message_flood", "Too many messages", 1008),
    TooSlow: Outcome(408, "too_slow", "Too slow a reader", 4408),
    GoingAway: Outcome(503, "going_away", "Restarting", 1001),
    Overloaded: Outcome(503, "overloaded", "Overloaded", 4429),
    InternalError: Outcome(500, "internal_error", "Internal error", 1011),
    ExchangeError: UNAVAILABLE,
    ExchangeTimeout: Outcome(504, "upstream_timeout", "The exchange gave no answer in time"),
}


def outcome_of(error: GatewayError) -> Outcome:
    """The row of `error`'s nearest class in the table; an InvalidRequest's code names its parameter."""
    for kind in type(error).__mro__:
        if (outcome := OUTCOMES.get(kind)) is not None:
            break
    else:
        raise KeyError(type(error))
    if isinstance(error, InvalidRequest):
        return outcome._replace(code=f"invalid_{error.parameter}")
    return outcome
