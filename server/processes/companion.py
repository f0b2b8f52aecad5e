"""The simulator beside the gateway: started when it is first needed, and again whenever it ends."""

import threading
from types import TracebackType
from typing import Self

import msgspec

from ..configuration import SECRET_VARIABLES
from ..environment import without
from ..settings import BybitSettings, Secret, Settings
from ..simulator.child import API_KEY, API_SECRET, SimulatorProcess
from ..telemetry import get_logger

log = get_logger(__name__)

LOOK_S = 0.5
STOP_S = 1.0


class Companion:
    """Owns the simulator's process, at one address for as long as it is entered. Blocking: not for an event loop."""

    def __init__(self) -> None:
        self._process = SimulatorProcess(environment=without(SECRET_VARIABLES))
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="simulator-keeper", daemon=True)

    def __enter__(self) -> Self:
        return self

    def pointed(self, settings: Settings) -> Settings:
        """The settings with the simulator's address and key, if they want it. Raises RuntimeError if it fails."""
        if not settings.starts_simulator:
            return settings
        if not self._process.url:
            url = self._process.start()
            log.info("simulator_started", url=url)
            self._process.port = int(url.rpartition(":")[2])
            self._keeper.start()
        return msgspec.structs.replace(settings, bybit=_pointed(settings.bybit, self._process.url))

    def _keep(self) -> None:
        while not self._ending.wait(LOOK_S):
            if (code := self._process.poll()) is not None:
                log.warning("simulator_ended", code=code)
                try:
                    self._process.start()
                except (RuntimeError, OSError) as error:
                    log.error("simulator_start_failed", detail=str(error))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._keeper.ident is not None:
            self._keeper.join(STOP_S)
        self._process.stop(STOP_S)


def _pointed(bybit: BybitSettings, url: str) -> BybitSettings:
    streams = bybit.stream_url or url.replace("http", "ws", 1)
    if bybit.api_key is not None:
        return msgspec.structs.replace(bybit, rest_url=url, stream_url=streams)
    key, secret = Secret(API_KEY), Secret(API_SECRET)
    return msgspec.structs.replace(bybit, rest_url=url, stream_url=streams, api_key=key, api_secret=secret)
