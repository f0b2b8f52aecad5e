"""Errors as HTTP answers: RFC 9457 problem details."""

import math
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from ..errors import (
    ExchangeError,
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TooLarge,
    TooLate,
    outcome_of,
)

RETRY_AFTER_S = 1.0


def problem(error: GatewayError, request_id: str) -> web.Response:
    """`error` as application/problem+json, with Retry-After where coming back later helps."""
    outcome, body = outcome_of(error), body_of(error, request_id)
    headers = {"Cache-Control": "no-store"}
    if outcome.status in (429, 503, 504) and error.temporary:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or RETRY_AFTER_S)))
    if isinstance(error, RateLimited) and (quota := error.quota) is not None:
        headers["RateLimit-Policy"] = f'"{quota.name}";q={quota.most};w={math.ceil(quota.window_s)}'
        headers["RateLimit"] = f'"{quota.name}";r=0;t={headers["Retry-After"]}'
    if isinstance(error, TooLate):
        headers["Connection"] = "close"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if outcome.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=msgspec.json.encode(body), status=outcome.status, headers=headers, content_type="application/problem+json"
    )


def body_of(error: GatewayError, request_id: str) -> dict[str, Any]:
    """What the answer says."""
    outcome = outcome_of(error)
    body: dict[str, Any] = {
        "type": f"urn:problem:{outcome.code}",
        "title": outcome.title,
        "status": outcome.status,
        "detail": error.detail,
        "code": outcome.code,
        "request_id": request_id,
    }
    if isinstance(error, ExchangeError):
        body["reason"] = error.reason
    return body


def of_http(error: web.HTTPException) -> GatewayError:
    """aiohttp's own refusals as ours."""
    if isinstance(error, web.HTTPNotFound):
        return NotFound("there is no such route")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"this route answers {allowed} only", allowed=allowed)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("the request's body is too large")
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidRequest("request", error.reason or "the request is malformed")
    return InternalError("a bug of the gateway; the log has it under this request id")
