"""Who may ask: API keys and the signature check of private calls (Bybit V5, "Integration Guidance").

Each refusal is an answer of Bybit's own with HTTP 200; `Refusal` carries its code and message.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from msgspec import Struct

from .child import API_KEY, API_SECRET, TRADING_KEY, TRADING_SECRET

DEFAULT_RECV_WINDOW_MS = 5_000
LEEWAY_MS = 1_000


class Refusal(Exception):
    """The exchange answers with a retCode other than 0."""

    def __init__(self, ret_code: int, ret_msg: str) -> None:
        super().__init__(ret_msg)
        self.ret_code, self.ret_msg = ret_code, ret_msg


class ApiKey(Struct, frozen=True):
    """A key that the exchange knows."""

    key: str
    secret: str
    read_only: bool


KEYS: Mapping[str, ApiKey] = {
    API_KEY: ApiKey(API_KEY, API_SECRET, True),
    TRADING_KEY: ApiKey(TRADING_KEY, TRADING_SECRET, False),
}


def signature(secret: str, text: str) -> str:
    """HMAC-SHA256 in hex."""
    return hmac.new(secret.encode(), text.encode(), sha256).hexdigest()


def in_window(timestamp_ms: int, server_ms: int, recv_window_ms: int) -> bool:
    """Bybit's rule: server_time - recv_window <= timestamp < server_time + 1000."""
    return server_ms - recv_window_ms <= timestamp_ms < server_ms + LEEWAY_MS


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refusal(10001, "Request parameter error.")
    return int(text)


def authenticate(headers: Mapping[str, str], query: str, server_times_ms: Iterable[int]) -> ApiKey:
    """The key of a signed call, whose raw query string is `query`; raises Refusal.

    A timestamp is good if it lies in the window of any of the server times; the first one is named in the refusal.
    """
    names = ("X-BAPI-TIMESTAMP", "X-BAPI-API-KEY", "X-BAPI-SIGN")
    timestamp, key, sign = (headers.get(name, "") for name in names)
    if not (timestamp and key and sign):
        raise Refusal(10001, f"empty value: apiTimestamp[{timestamp}] apiKey[{key}] apiSignature[{sign}]")
    window = headers.get("X-BAPI-RECV-WINDOW", "") or str(DEFAULT_RECV_WINDOW_MS)
    timestamp_ms, window_ms, times_ms = _integer(timestamp), _integer(window), tuple(server_times_ms)
    if (known := KEYS.get(key)) is None:
        raise Refusal(10003, "API key is invalid.")
    if not any(in_window(timestamp_ms, server_ms, window_ms) for server_ms in times_ms):
        raise Refusal(
            10002,
            "invalid request, please check your server timestamp or recv_window param. "
            f"req_timestamp[{timestamp}],server_timestamp[{times_ms[0]}],recv_window[{window_ms}]",
        )
    origin = f"{timestamp}{key}{headers.get('X-BAPI-RECV-WINDOW', '')}{query}"
    if not hmac.compare_digest(signature(known.secret, origin).encode(), sign.lower().encode()):
        raise Refusal(10004, f"error sign! origin_string[{origin}]")
    return known


def authenticate_stream(args: Sequence[object], server_times_ms: Iterable[int]) -> ApiKey:
    """The key of a private stream's auth: [key, expires, signature], signed over `GET/realtime` and expires.

    It is good while any of the server times lies before `expires`. Raises Refusal.
    """
    if len(args) != 3 or not all(isinstance(arg, str | int) for arg in args):
        raise Refusal(10001, "Params Error")
    key, expires, sign = (str(arg) for arg in args)
    expires_ms = _integer(expires)
    if (known := KEYS.get(key)) is None:
        raise Refusal(10003, "API key is invalid.")
    if all(server_ms >= expires_ms for server_ms in server_times_ms):
        raise Refusal(10002, "Params Error")  # the words of Bybit for what is late
    if not hmac.compare_digest(signature(known.secret, f"GET/realtime{expires}").encode(), sign.lower().encode()):
        raise Refusal(10004, "error sign!")
    return known
