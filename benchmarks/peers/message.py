"""The message that every peer broadcasts: as long as the gateway's snapshot, its seq one higher each time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FIRST_SEQUENCE = 100_000_000_000
BUFFERED_BYTES = 65_536
"""Over that a socket is skipped until it drains: the gateway's own high-water mark."""


class Task(NamedTuple):
    """What the command line asks of a peer: PORT COUNT FRAME_FILE."""

    port: int
    sockets: int
    text: str

    def messages(self) -> Iterator[str]:
        """One after the other, without an end."""
        before, _, after = self.text.partition(f'"seq":{FIRST_SEQUENCE}')
        sequence = FIRST_SEQUENCE
        while True:
            sequence += 1
            yield f'{before}"seq":{sequence}{after}'


def given_task() -> Task:
    """From this process's arguments."""
    port, sockets, file = sys.argv[1:4]
    return Task(int(port), int(sockets), Path(file).read_text())
