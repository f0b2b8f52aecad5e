"""Failures: everything that pybit, requests and urllib3 raise, as errors of our own that hold no more than they say."""

import time
from traceback import clear_frames
from typing import Any

import requests
import urllib3
from pybit.exceptions import FailedRequestError, InvalidRequestError

from ..errors import (
    AddressBanned,
    BadAnswer,
    CallRefused,
    ClockSkew,
    CredentialsRefused,
    ExchangeBusy,
    ExchangeError,
    ExchangeTimeout,
    ExchangeUnreachable,
    RateExceeded,
)
from .budget import reset_wait_s

REFUSALS: dict[int, type[ExchangeError]] = {
    10000: ExchangeBusy,
    10002: ClockSkew,
    10003: CredentialsRefused,
    10004: CredentialsRefused,
    10005: CredentialsRefused,
    10006: RateExceeded,
    10007: CredentialsRefused,
    10009: AddressBanned,
    10010: CredentialsRefused,
    10016: ExchangeBusy,
    10018: RateExceeded,
    10024: AddressBanned,
    33004: CredentialsRefused,
    -2015: CredentialsRefused,
}
"""Bybit's retCodes that mean something to us; every other one is CallRefused."""


def asked(method: Any, query: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Answer and headers. pybit raises far more than it documents; here it becomes ours."""
    try:
        answer, _, headers = method(**query)
    except ExchangeError:
        raise
    except Exception as error:
        raise translated(error) from error
    return answer, headers


def empty(error: BaseException) -> None:
    """Let go of what the frames of `error` hold, and those of its causes: whole answers, and requests with the key.

    Errors are kept, by feeds and breakers, for as long as the trouble lasts.
    """
    cause: BaseException | None = error
    while cause is not None:
        clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def translated(error: Exception) -> ExchangeError:
    """pybit's, requests' or urllib3's `error` as one of ours.

    The detail goes to clients: it holds no URL, no header, and nothing the exchange wrote, which may echo a key.
    """
    if isinstance(error, InvalidRequestError):
        code = error.status_code
        kind = REFUSALS.get(code, CallRefused) if isinstance(code, int) else CallRefused
        retry_after_s = reset_wait_s(error.resp_headers or {}, time.time() * 1000) if kind is RateExceeded else None
        return kind(f"the exchange refused the call with code {printable(code)}", retry_after_s=retry_after_s)
    if isinstance(error, FailedRequestError):
        return _of_status(error.status_code)
    if isinstance(error, urllib3.exceptions.DecodeError):
        return BadAnswer("the exchange's answer could not be unpacked")
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return ExchangeTimeout("the exchange gave no whole answer in time")
    if isinstance(error, (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)):
        return ExchangeUnreachable(f"the exchange could not be reached: {type(error).__name__}")
    return BadAnswer(f"the exchange's answer made no sense: {type(error).__name__}")


def _of_status(status: int) -> ExchangeError:
    if status == 401:
        return CredentialsRefused("the exchange refuses the key (HTTP 401)")
    if status == 403:
        return AddressBanned("the exchange refuses this address (HTTP 403): a rate ban, or a region it does not serve")
    if status == 429 or status >= 500:
        return ExchangeBusy(f"the exchange is overloaded or restarting (HTTP {status})")
    return CallRefused(f"the exchange answered HTTP {status}")


def printable(message: object) -> str:
    """At most 200 characters of `message` that forge no line of a log."""
    return "".join(ch if ch.isprintable() else " " for ch in str(message))[:200]
