"""Redaction: what keeps every known secret out of a rendered log line, however encoders may have written it."""

import re
from collections.abc import Iterable

from .settings import Secret

MASK = b"***"
SHORT_SECRET = 6
SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", " ": r"\+"}  # a space is + in a query


class Redactor:
    """Masks every known secret in a rendered line, however encoders may have nested and escaped it.

    A secret shorter than six characters is masked only where it stands as a whole word: inside words it would be
    found everywhere, and hiding it there would spoil the log without hiding anything.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._values: set[str] = set()
        self._patterns: list[re.Pattern[bytes]] = []
        self.add(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        """Mask these too from now on; safe while other threads render lines."""
        self._values = self._values | {secret.reveal() for secret in secrets}
        self._patterns = [_pattern(value) for value in sorted(self._values, key=len, reverse=True)]

    def __call__(self, line: bytes) -> bytes:
        """Give the line without secrets, the same object if it had none."""
        for pattern in self._patterns:
            if pattern.search(line):
                line = pattern.sub(MASK, line)
        return line


def _pattern(value: str) -> re.Pattern[bytes]:
    body = b"".join(map(_encodings, value))
    return re.compile(body if len(value) >= SHORT_SECRET else rb"(?<!\w)(?:%s)(?!\w)" % body)


def _encodings(char: str) -> bytes:
    """Match one character as it is, as URLs write it, or escaped as in JSON and reprs, to any depth."""
    raw, code = char.encode("utf-8", "surrogatepass"), ord(char)
    if code < 128 and (char.isalnum() or char in "-._~"):  # what no encoder changes
        return re.escape(raw)
    escapes = [
        f"u{code:04x}",
        f"U{code:08x}",
        f"x{code:02x}",
        *([SHORT_ESCAPES[char]] if char in SHORT_ESCAPES else []),
    ]
    if code > 0xFFFF:
        escapes.append(rf"u{0xD7C0 + (code >> 10):04x}\\+u{0xDC00 + (code & 0x3FF):04x}")
    quoted = "".join(f"%(?:25)*{byte:02x}" for byte in raw)
    return rb"\\*(?:(?i:%s)|%s)" % ("|".join([quoted, *escapes]).encode(), re.escape(raw))
