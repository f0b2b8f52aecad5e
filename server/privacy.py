"""Private files: read only where nobody but their owner can read them."""

import os
import stat
import sys
from pathlib import Path

ALLOWED = "allowed: mode 0400 or 0600, or root's own file with 0440 or 0640"


class TooOpen(Exception):
    """Others can read the file. Its text says which mode it has, and which are allowed."""


def read_private(path: Path) -> str:
    """The text of a file that nobody else can read. Blocks. Raises TooOpen, OSError, or ValueError for what is no text.

    A file of root's may be readable by its group where we are not root: that is how root hands a secret to a service
    (systemd's credentials, a Kubernetes volume with an fsGroup), and what PostgreSQL allows a key.
    """
    with path.open(encoding="utf-8-sig") as file:
        if sys.platform != "win32":  # there modes say nothing
            status = os.fstat(file.fileno())
            if not may_be_read(status, os.geteuid()):
                mode = stat.S_IMODE(status.st_mode)
                raise TooOpen(f"others than its owner have rights to the file, its mode is {mode:04o}; {ALLOWED}")
        return file.read()


def may_be_read(status: os.stat_result, user: int) -> bool:
    """Whether a file is private enough for `user`: no rights for others, and none for the group unless root gave it."""
    is_from_root = status.st_uid == 0 != user
    return not stat.S_IMODE(status.st_mode) & (0o037 if is_from_root else 0o077)
