"""A worker's place in the gateway, and how a reload goes through all places."""

import signal
from collections.abc import Callable, Sequence

import msgspec

from ..settings import AuthSettings, Settings
from ..telemetry import get_logger
from .post import Readmit, Rekey
from .process import Process
from .restarts import Backoff

log = get_logger(__name__)

MARGIN_S = 2.0
"""What a worker gets beyond its own deadline before it is killed."""


class Slot:
    """One place: the worker in it, its successor in a reload, and those before them that still drain.

    `settings` are those of the worker in it, and of whoever has to replace it; `start_at` is when one is to be started,
    on the monotonic clock, None where none is to be. `rekeyed` are the settings with a key that the worker in it was
    ordered to use; they become its own once it says that it does.
    """

    def __init__(self, index: int, settings: Settings) -> None:
        self.index = index
        self.settings = settings
        self.current: Process | None = None
        self.successor: Process | None = None
        self.leaving: list[Process] = []
        self.backoff = Backoff()
        self.start_at: float | None = 0.0
        self.rekeyed: Settings | None = None
        self._orders = 0

    @property
    def is_serving(self) -> bool:
        return self.current is not None and self.current.is_ready

    @property
    def processes(self) -> list[Process]:
        """All that are not known to have ended."""
        return [process for process in (self.current, self.successor, *self.leaving) if process is not None]

    def rekey(self, settings: Settings) -> None:
        """Order the worker in it to use the key of `settings`, which differ from its own in nothing else."""
        key, secret = settings.bybit.api_key, settings.bybit.api_secret
        assert self.current is not None
        assert key is not None
        assert secret is not None
        self.rekeyed = settings
        self._orders += 1
        self.current.order(Rekey(self._orders, key, secret))

    def readmit(self, auth: AuthSettings) -> None:
        """Have whoever serves here, and whoever replaces it, admit by `auth`."""
        self.settings = msgspec.structs.replace(self.settings, auth=auth)
        if self.rekeyed is not None:
            self.rekeyed = msgspec.structs.replace(self.rekeyed, auth=auth)
        for process in self.processes:
            if process.is_ready:  # others are told once they are
                process.order(Readmit(auth))

    def heed_key_report(self) -> None:
        """Take the settings with the new key for its own, if the worker in it has; what it says of others is past."""
        report = None if self.current is None else self.current.key_report
        if self.rekeyed is None or report is None or report.number != self._orders:
            return
        if report.is_taken:
            self.settings = self.rekeyed
        self.rekeyed = None

    def promote(self) -> None:
        """Give the place to the successor, and ask the one before it to drain."""
        former, self.current, self.successor = self.current, self.successor, None
        assert self.current is not None
        self.settings = self.current.settings
        if former is not None:
            self.leaving.append(former)
            leave(former, signal.SIGTERM)

    def forget(self, process: Process) -> None:
        """Take out one that has ended."""
        if process is self.current:
            self.current = self.rekeyed = None
        elif process is self.successor:
            self.successor = None
        else:
            self.leaving.remove(process)


def leave(process: Process, number: int) -> None:
    """Ask a worker to drain, in its own time and a little more."""
    process.leave(number, process.settings.server.shutdown_s + MARGIN_S)


class Roll:
    """A reload under way: place by place, a successor is started, and only once it serves its predecessor drains.

    Invariant: at most one place at a time has a successor or a drain because of it. Where a successor does not become
    ready the roll is over: those before it have the new settings, the others keep the old ones.
    """

    def __init__(self, slots: Sequence[Slot], start: Callable[[int], Process]) -> None:
        """`start` starts the successor for a place; it raises OSError where the system refuses."""
        self._left = list(slots)
        self._turning: Slot | None = None
        self._is_promoted = False
        self._start = start

    def step(self, now: float) -> bool:
        """Do what can be done; False once it is over."""
        slot = self._turning
        if slot is None:
            return self._next()
        if slot.successor is not None:
            if slot.successor.is_ready:
                slot.promote()
                self._is_promoted = True
            return True
        if not self._is_promoted:
            return self._stop(slot, now)
        return bool(slot.leaving) or self._next()

    def _next(self) -> bool:
        if not self._left:
            log.info("reloaded")
            return False
        slot = self._turning = self._left.pop(0)
        self._is_promoted = False
        try:
            slot.successor = self._start(slot.index)
        except OSError as error:
            log.error("reload_stopped", worker=slot.index, detail=error.strerror or str(error))
            return False
        slot.start_at = None
        return True

    def _stop(self, slot: Slot, now: float) -> bool:
        log.error("reload_stopped", worker=slot.index, detail="the successor was not ready; its predecessor goes on")
        if slot.current is None:
            slot.start_at = now
        return False
