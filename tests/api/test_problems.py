"""Problems: aiohttp's own refusals become ours, and every error has its row in the table."""

import msgspec
import pytest
from aiohttp import web

from server.api.problems import of_http, problem
from server.errors import OUTCOMES, ExchangeTimeout, GatewayError, MethodNotAllowed, StaleReading, outcome_of


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "not_found"),
        (web.HTTPMethodNotAllowed("POST", ["GET", "HEAD"]), 405, "method_not_allowed"),
        (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), 413, "too_large"),
        (web.HTTPBadRequest(), 400, "invalid_request"),
        (web.HTTPUpgradeRequired(), 400, "invalid_request"),
        (web.HTTPInternalServerError(), 500, "internal_error"),
    ],
)
def test_refusals_of_the_library_are_ours(error: web.HTTPException, status: int, code: str) -> None:
    """Whatever aiohttp raises by itself is answered as a problem of ours."""
    response = problem(of_http(error), "r-1")
    assert isinstance(response.body, bytes)
    body = msgspec.json.decode(response.body)
    assert (response.status, body["status"], body["code"], body["request_id"]) == (status, status, code, "r-1")
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize(("retry_after_s", "header"), [(None, "1"), (0.2, "1"), (7.1, "8"), (600, "600")])
def test_retry_after_is_in_whole_seconds(retry_after_s: float | None, header: str) -> None:
    """Whoever may come back is told when, never sooner than it helps."""
    for error in (
        StaleReading("old", retry_after_s=retry_after_s),
        ExchangeTimeout("late", retry_after_s=retry_after_s),
    ):
        assert problem(error, "r").headers["Retry-After"] == header


def test_every_error_has_a_row() -> None:
    """Each class of the tree finds its row, and a method not allowed says which are."""
    kinds = [GatewayError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert len(kinds) > 20
    for kind in kinds[1:]:
        assert any(base in OUTCOMES for base in kind.__mro__), kind
    assert problem(MethodNotAllowed("no", allowed="GET"), "r").headers["Allow"] == "GET"
    with pytest.raises(KeyError):
        outcome_of(GatewayError("the root itself is never raised"))
