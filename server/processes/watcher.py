"""Watching the gateway's own files while it is developed: each change is a SIGHUP to this process."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import watchfiles

from ..telemetry import get_logger

log = get_logger(__name__)

SERVER = Path(__file__).resolve().parents[1]
DEBOUNCE_MS = 400
"""The longest time over which changes are taken together."""


class Watcher:
    """A thread that watches the modules of the gateway and its configuration file while it is entered."""

    def __init__(self, config: Path) -> None:
        self._config = config.resolve()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _folders(self) -> Iterator[Path]:
        """Folders, for editors replace files; and without what is below them, for there may be much."""
        yield self._config.parent
        yield from {path.parent for path in SERVER.rglob("*.py")} - {self._config.parent}

    def _is_ours(self, _: watchfiles.Change, name: str) -> bool:
        path = Path(name)
        return path == self._config or (path.suffix == ".py" and SERVER in path.parents)

    def _watch(self) -> None:
        for changes in watchfiles.watch(
            *self._folders(),
            watch_filter=self._is_ours,
            stop_event=self._ending,
            debounce=DEBOUNCE_MS,
            recursive=False,
        ):
            log.info("files_changed", paths=sorted({name for _, name in changes}))
            os.kill(os.getpid(), signal.SIGHUP)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(1.0)
