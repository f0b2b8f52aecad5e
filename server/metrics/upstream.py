"""What there is to tell of Bybit: calls, guards, streams."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..bybit.calls import Calls
from ..bybit.client import BybitClient
from ..bybit.guards import Guards
from .family import Family, family, labelled, single

STATES = ("closed", "open", "half-open")
OF_STREAMS = {
    "lines": "gateway_stream_lines",
    "channels": "gateway_stream_channels",
    "in_sync": "gateway_stream_channels_in_sync",
    "connections": "gateway_stream_connections_total",
    "reconnects": "gateway_stream_reconnects_total",
    "messages": "gateway_stream_messages_total",
    "gaps": "gateway_stream_gaps_total",
    "garbage": "gateway_stream_garbage_total",
    "refused": "gateway_stream_refused_total",
    "silences": "gateway_stream_silences_total",
}


def of_client(client: BybitClient) -> Iterator[Family]:
    """Calls and what they pass."""
    yield from of_calls(client.calls)
    yield from of_guards(client.guards)
    if (offset_ms := client.clock_offset_ms) is not None:
        yield single("gateway_clock_offset_seconds", offset_ms / 1000)
    if (key := client.credentials.describe()) is not None and key["expires_at_ms"] is not None:
        yield single("gateway_key_expiry_timestamp_seconds", key["expires_at_ms"] / 1000)


def of_calls(calls: Calls) -> Iterator[Family]:
    """How calls ended, and how long they took."""
    ended, refused = family("gateway_upstream_calls_total"), family("gateway_upstream_refused_total")
    durations = family("gateway_upstream_call_duration_seconds")
    for (endpoint, outcome), count in calls.outcomes.items():
        ended.add(count, endpoint=endpoint, outcome=outcome)
    for (endpoint, reason), count in calls.refusals.items():
        refused.add(count, endpoint=endpoint, reason=reason)
    for endpoint, histogram in calls.durations.items():
        durations.add_histogram(histogram, endpoint=endpoint)
    yield from (ended, refused, durations)


def of_guards(guards: Guards) -> Iterator[Family]:
    """Threads, breakers, budget."""
    pools, said = guards.pools, guards.describe()
    yield labelled("gateway_upstream_in_flight", "endpoint", {name: pool.in_flight for name, pool in pools.items()})
    yield labelled("gateway_upstream_queue", "endpoint", {name: pool.waiting for name, pool in pools.items()})
    yield labelled("gateway_upstream_threads", "endpoint", {name: pool.threads for name, pool in pools.items()})
    yield labelled("gateway_budget_left", "window", said["budget_left"])
    breakers = family("gateway_breaker_state")
    for scope, breaker in said["breakers"].items():
        for state in STATES:
            breakers.add(breaker["state"] == state, scope=scope, state=state)
    yield breakers


def of_streams(said: Mapping[str, Mapping[str, Any]]) -> Iterator[Family]:
    """What the streams describe of themselves, by kind."""
    for key, name in OF_STREAMS.items():
        yield labelled(name, "stream", {kind: numbers[key] for kind, numbers in said.items()})
