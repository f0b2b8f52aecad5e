"""What faults make of a message on its way to those who follow its topic."""

from __future__ import annotations

from .garbage import garbage
from .streamfaults import Kind, StreamFaults


def disturbed(faults: StreamFaults, path: str, topic: str, data: bytes) -> list[bytes]:
    """The messages that are sent in place of this one, in their order; each fault counts it."""
    if faults.hit(Kind.DROP, path, topic) is not None:
        return []
    if (bad := faults.hit(Kind.GARBAGE, path, topic)) is not None:
        data = garbage(data, bad.fault.rubbish, bad.fault.size_bytes)
    for active in faults.of(Kind.REORDER):
        if topic in active.held and active.fits(path, topic):
            active.meets(topic)
            return [data, active.held.pop(topic)]
    if (holding := faults.hit(Kind.REORDER, path, topic)) is not None:
        holding.held[topic] = data
        return []
    return [data, data] if faults.hit(Kind.REPEAT, path, topic) is not None else [data]
