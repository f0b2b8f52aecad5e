"""The process's environment: the secrets in it are for this process alone, and not for whoever looks at it."""

import ctypes
import os
import sys
from collections.abc import Collection


def without(names: Collection[str]) -> dict[str, str]:
    """The environment for a child process that these variables are none of the business of."""
    return {name: value for name, value in os.environ.items() if name not in names}


def wipe(names: Collection[str]) -> None:
    """Empty the values of these variables where the system shows them, in /proc/PID/environ; for Linux.

    That is the memory that the process was started with. `os.environ` is a copy, made when Python started: it keeps
    them, so that a reload finds what the start found.
    """
    if sys.platform != "linux":
        return
    entries = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    position = 0
    while (address := entries[position]) is not None:
        name, _, value = ctypes.string_at(address).partition(b"=")
        if os.fsdecode(name) in names:
            ctypes.memset(address + len(name) + 1, 0, len(value))
        position += 1
