"""Memory: what is free in the middle of the heap goes back to the system, again and again while the gateway runs."""

import asyncio
import ctypes
import subprocess
import sys

import pytest

from server import memory

NEEDS_GLIBC = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's heap"
)
HOLES = """
import resource
from server import memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

blocks = [bytes(10_000) for _ in range(10_000)]
pins = blocks[::100] + blocks[-1:]
del blocks
before = resident_mb()
memory.give_back()
print(before - resident_mb())
"""


@NEEDS_GLIBC
def test_holes_in_the_heap_go_back() -> None:
    """Of 100 MB of which one block in a hundred stays, most goes back: a process of its own, for a heap of its own."""
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 70


def test_where_there_is_no_such_heap_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another system nor another C library is a reason to fail."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    memory.give_back()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.delattr("ctypes.CDLL")
    memory.give_back()


async def test_it_is_done_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so often until the end, and never on the loop's thread."""
    threads = asyncio.Queue[bool]()
    loop = asyncio.get_running_loop()

    def noted() -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop.call_soon_threadsafe(threads.put_nowait, False)
        else:
            threads.put_nowait(True)

    monkeypatch.setattr(memory, "TIDY_S", 0.01)
    monkeypatch.setattr(memory, "give_back", noted)
    before = asyncio.all_tasks()
    async with memory.tidied():
        assert [await asyncio.wait_for(threads.get(), 5) for _ in range(3)] == [False] * 3
    assert asyncio.all_tasks() <= before
