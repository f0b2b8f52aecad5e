"""Private files: whose rights to them are too much."""

import os
import sys
from pathlib import Path

import pytest

from server.privacy import TooOpen, may_be_read, read_private

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes say nothing there")

ROOT, US, OTHER = 0, 10001, 1000


def status(mode: int, owner: int) -> os.stat_result:
    """Of a file with that mode and owner."""
    return os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "user", "is_private"),
    [
        (0o400, US, US, True),
        (0o600, US, US, True),
        (0o700, US, US, True),
        (0o440, US, US, False),
        (0o604, US, US, False),
        (0o440, ROOT, US, True),
        (0o640, ROOT, US, True),
        (0o660, ROOT, US, False),
        (0o444, ROOT, US, False),
        (0o644, ROOT, US, False),
        (0o440, OTHER, US, False),
        (0o440, ROOT, ROOT, False),
        (0o400, ROOT, ROOT, True),
        (0o640, US, ROOT, False),
    ],
)
def test_rights(mode: int, owner: int, user: int, is_private: bool) -> None:
    """Nobody but the owner; a file that root hands to another user may be read by the group, and by no others."""
    assert may_be_read(status(mode, owner), user) is is_private


def test_the_open_file_is_what_counts(tmp_path: Path) -> None:
    """A link's own mode says nothing: that of the file behind it does."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("secret")
    link.symlink_to(file)
    file.chmod(0o600)
    assert read_private(link) == "secret"
    file.chmod(0o644)
    with pytest.raises(TooOpen, match="0644; allowed: mode 0400"):
        read_private(link)


def test_a_pipe_is_private() -> None:
    """A shell's `<(command)` hands a secret over without any file."""
    reader, writer = os.pipe()
    os.write(writer, b"secret\n")
    os.close(writer)
    try:
        assert read_private(Path(f"/dev/fd/{reader}")) == "secret\n"
    finally:
        os.close(reader)
