"""The supervisor: starts the workers and whoever follows them, rolls through them on a reload, and ends them all.

It serves nothing and has no event loop: it waits for signals, reports and times, and looks at everything after each.
What is to be done follows from how things stand, so that no order of events is missed.
"""

import functools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from ..configuration import ConfigurationError
from ..settings import AuthSettings, Settings
from ..telemetry import get_logger
from .listeners import end_each
from .neighbours import Mailbox
from .post import Accept, Readmit, Release
from .process import READY_S, Phase, Process
from .restarts import Stillbirths
from .signals import Signals
from .slot import Roll, Slot, leave

log = get_logger(__name__)

LOOK_S = 1.0
"""The longest time without a look, should ever a signal be lost."""
ASLEEP_S = 5.0
"""A longer time without a look: the machine was stopped, or this process was, and its workers too, perhaps."""
SUCCESSOR_S = 15.0
"""How long a successor may take to be ready in a reload."""
FIXED = ("host", "port", "workers")
"""What of `server` only a restart changes."""


class Supervisor:
    """The parent of the workers.

    Invariant: whenever any worker is ready, each listening socket has one that accepts on it: its own, or a neighbour
    until its own is back.
    """

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket], load: Callable[[], Settings]) -> None:
        """`load` gives the settings anew; it raises ConfigurationError, or OSError or RuntimeError."""
        self._settings = settings
        self._listeners = listeners
        self._load = load
        self._slots = [Slot(index, settings) for index in range(settings.server.workers)]
        self._mailboxes = [Mailbox() for _ in self._slots]
        self._stillbirths = Stillbirths()
        self._covering: dict[int, Process] = {}
        self._roll: Roll | None = None
        self._is_reload_wanted = False
        self._auth = settings.auth
        self._code: int | None = None
        self._looked_at = time.monotonic()

    def run(self) -> int:
        """Supervise until a signal or too many deaths; gives the exit code. For the main thread."""
        with Signals() as signals:
            while True:
                for number in signals.take():
                    self._heed(number)
                self._look()
                if self._code is not None and not any(self._processes()):
                    break
                self._wait(signals)
        end_each(self._listeners)
        for mailbox in self._mailboxes:
            mailbox.close()
        log.info("supervisor_stopped", code=self._code)
        return self._code

    def _processes(self) -> Iterator[Process]:
        return (process for slot in self._slots for process in slot.processes)

    def _wait(self, signals: Signals) -> None:
        """Until something may have happened, or a time has come."""
        times = [process.deadline for process in self._processes()] + [slot.start_at for slot in self._slots]
        next_at = min((at for at in times if at is not None), default=float("inf"))
        with selectors.DefaultSelector() as selector:
            selector.register(signals.reader, selectors.EVENT_READ)
            for process in self._processes():
                if not process.is_mute:
                    selector.register(process.channel, selectors.EVENT_READ)
            selector.select(min(LOOK_S, max(0.0, next_at - time.monotonic())))

    def _heed(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._code is None:
                log.info("stopping", signal=signal.Signals(number).name)
                self._stop(0, number)
            else:
                self._stop_at_once()
        elif number == signal.SIGHUP:
            self._is_reload_wanted = True
            if self._roll is not None and (settings := self._loaded()) is not None:
                self._readmit(settings.auth)  # the rest waits for the end of the roll; a revoked token must not

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at > ASLEEP_S:
            for process in self._processes():
                process.bear_with()
        self._looked_at = now
        for slot in self._slots:
            for process in slot.processes:
                self._look_at(slot, process, now)
        if self._code is not None:
            if all(process.phase is Phase.DRAINING for process in self._processes()):
                end_each(self._listeners)  # nobody accepts any more: refuse instead of keeping waiting
            return
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at:
                self._start(slot, now)
        self._cover()
        self._reload(now)

    def _look_at(self, slot: Slot, process: Process, now: float) -> None:
        was_ready = process.has_been_ready
        process.look()
        if process.has_been_ready and not was_ready:
            self._stillbirths.ready()
            if process.settings.auth != self._auth:  # they have changed since it was started
                process.order(Readmit(self._auth))
        slot.heed_key_report()
        if process.code is not None:
            self._ended(slot, process, now)
        elif process.deadline is None or now < process.deadline:
            return
        elif process.is_ready:
            log.error("worker_hung", worker=process.index, pid=process.pid, silent_s=process.settings.server.hang_s)
            process.abort()
        else:
            log.error("worker_overdue", worker=process.index, pid=process.pid, phase=process.phase.value)
            process.kill()

    def _ended(self, slot: Slot, process: Process, now: float) -> None:
        is_current = process is slot.current
        slot.forget(process)
        if self._code is not None:
            if self._code == 0 and process.has_been_ready and process.code != 0:
                self._code = 1
        elif is_current:
            self._died(slot, now, process.age_s, process.code, was_ready=process.has_been_ready)

    def _died(self, slot: Slot, now: float, lived_s: float, code: int | None, *, was_ready: bool) -> None:
        """Have a successor started in time, or give up."""
        if not was_ready:
            self._stillbirths.died_early()
        if code == 2 and not self._stillbirths.has_any_been_ready:
            log.error("giving_up", detail="a worker refused to serve, and said why")
            self._stop(2)
        elif self._stillbirths.are_too_many:
            log.error("giving_up", detail=f"{self._stillbirths.in_a_row} workers in a row ended before they were ready")
            self._stop(1)
        elif slot.successor is None:
            slot.start_at = now + slot.backoff.wait_s(lived_s)

    def _start(self, slot: Slot, now: float) -> None:
        slot.start_at = None
        try:
            slot.current = self._process(slot.settings, READY_S, slot.index)
        except OSError as error:
            log.error("worker_start_failed", worker=slot.index, detail=error.strerror or str(error))
            self._died(slot, now, 0.0, None, was_ready=False)

    def _process(self, settings: Settings, ready_s: float, index: int) -> Process:
        return Process(index, len(self._slots), settings, self._listeners, self._mailboxes, ready_s=ready_s)

    def _cover(self) -> None:
        """Let a neighbour accept for whoever is away, and take that back when it is no more."""
        if len(self._listeners) < len(self._slots):
            return  # they share one
        serving = {slot.index: slot.current for slot in self._slots if slot.current is not None and slot.is_serving}
        for slot in self._slots:
            cover = self._covering.get(slot.index)
            if slot.index in serving:
                if cover is not None:
                    del self._covering[slot.index]
                    cover.order(Release(slot.index))
            elif cover not in serving.values():
                self._covering.pop(slot.index, None)
                if (index := neighbour(slot.index, serving, len(self._slots))) is not None:
                    self._covering[slot.index] = serving[index]
                    serving[index].order(Accept(slot.index))

    def _reload(self, now: float) -> None:
        if self._roll is not None and not self._roll.step(now):
            self._roll = None
        if self._roll is None and self._is_reload_wanted:
            self._is_reload_wanted = False
            self._begin_reload()

    def _loaded(self) -> Settings | None:
        """The settings as they are to be from now on; None, and said why, where they cannot be."""
        try:
            loaded = self._load()
        except ConfigurationError as error:
            for text in error.errors:
                log.error("reload_refused", detail=text)
            return None
        except (OSError, RuntimeError) as error:
            log.error("reload_refused", detail=str(error))
            return None
        settings, left_out = with_fixed(loaded, self._settings)
        for name in left_out:
            log.warning("reload_leaves_out", setting=f"server.{name}", detail="only a restart changes it")
        if settings.exposes_account:
            log.error(
                "reload_refused", detail="others could read a real account without a token at the host that stays"
            )
            return None
        return settings

    def _readmit(self, auth: AuthSettings) -> None:
        """Have all workers go by other tokens at once: what is revoked must not wait for drains, place by place."""
        self._auth = auth
        for slot in self._slots:
            slot.readmit(auth)

    def _begin_reload(self) -> None:
        if (settings := self._loaded()) is None:
            return
        if any(slot.settings.auth != settings.auth for slot in self._slots):
            self._readmit(settings.auth)
            if all(slot.settings == settings for slot in self._slots) and self._all_serve():
                log.info("reloaded")
                return
        if is_only_another_key([slot.settings for slot in self._slots], settings) and self._all_serve():
            self._rekey(settings)
            return
        log.info("reloading")
        self._roll = Roll(self._slots, functools.partial(self._process, settings, SUCCESSOR_S))
        self._roll.step(time.monotonic())

    def _all_serve(self) -> bool:
        return all(slot.is_serving and not slot.leaving for slot in self._slots)

    def _rekey(self, settings: Settings) -> None:
        """Have every worker use another key, without a restart: no socket is closed for that."""
        log.info("changing_key")
        for slot in self._slots:
            slot.rekey(settings)

    def _stop(self, code: int, number: int = signal.SIGTERM) -> None:
        """Ask all to drain; the end of the last one is the end."""
        self._code, self._roll = code, None
        for slot in self._slots:
            slot.start_at = None
            for process in slot.processes:
                if process not in slot.leaving:
                    leave(process, number)

    def _stop_at_once(self) -> None:
        log.warning("killing_workers")
        self._code = self._code or 1
        for process in self._processes():
            process.kill()


def neighbour(index: int, serving: Collection[int], of: int) -> int | None:
    """Which of the serving workers accepts for worker `index`: the next one around; None where nobody serves."""
    return min(serving, key=lambda other: (other - index) % of, default=None)


def is_only_another_key(running: Sequence[Settings], loaded: Settings) -> bool:
    """Whether all that is new is the key of the exchange, where there was one before."""
    keyed = all(settings.has_keys for settings in (*running, loaded))
    is_same = all(without_key(settings) == without_key(loaded) for settings in running)
    return keyed and is_same and any(settings != loaded for settings in running)


def without_key(settings: Settings) -> Settings:
    """The settings without the key of the exchange."""
    bybit = msgspec.structs.replace(settings.bybit, api_key=None, api_secret=None)
    return msgspec.structs.replace(settings, bybit=bybit)


def with_fixed(loaded: Settings, running: Settings) -> tuple[Settings, list[str]]:
    """The loaded settings with what only a restart changes as it is, and the names of what would have changed."""
    left_out = [name for name in FIXED if getattr(loaded.server, name) != getattr(running.server, name)]
    server = msgspec.structs.replace(loaded.server, **{name: getattr(running.server, name) for name in FIXED})
    return msgspec.structs.replace(loaded, server=server), left_out
