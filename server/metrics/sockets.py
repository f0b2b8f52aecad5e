"""What there is to tell of sockets."""

from collections.abc import Iterator

from ..realtime.hub import Hub
from ..realtime.tally import Census
from .family import Family, family, labelled, single


async def of_hub(hub: Hub) -> list[Family]:
    """How many sockets came, are there and went, and what they were sent; asks them in slices."""
    return [*_families(hub, await hub.census())]


def _families(hub: Hub, census: Census) -> Iterator[Family]:
    yield single("gateway_sessions", census.sessions)
    yield single("gateway_sockets_opened_total", hub.tally.opened)
    yield labelled("gateway_sockets_closed_total", "code", hub.tally.closed)
    yield single("gateway_frames_sent_total", census.frames_sent)
    yield single("gateway_frames_conflated_total", census.frames_conflated)
    yield single("gateway_sockets_buffered_bytes", census.buffered_bytes)
    subscriptions = family("gateway_subscriptions")
    for (kind, is_live), count in hub.subscriptions().items():
        subscriptions.add(count, channel=kind, pace="live" if is_live else "interval")
    yield subscriptions
