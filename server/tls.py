"""TLS: the pair of certificate and key, read once and checked, and the context that connections are served with."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .privacy import TooOpen, read_private
from .settings import KeyPair, Secret

certificates_in = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL).findall
key_in = re.compile(r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----.+?-----END ([A-Z]+ )?PRIVATE KEY-----", re.DOTALL).search


class UnfitPair(Exception):
    """The files do not make a pair that can be served: `setting` is the one to look at, of `server`."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(reason)
        self.setting = setting


def read_pair(certificate: str, key: str) -> KeyPair:
    """The pair in the files of these paths. Blocks. Raises UnfitPair, which shows neither paths nor content."""
    chain = certificates_in(_text("tls_certificate", certificate, is_private=False))
    if not chain:
        raise UnfitPair("tls_certificate", "it holds no certificate; allowed: a file in PEM, the certificate first")
    found = key_in(_text("tls_key", key, is_private=True))
    if found is None:
        raise UnfitPair("tls_key", "it holds no private key; allowed: a file in PEM with the certificate's key")
    if "ENCRYPTED" in found[0]:
        raise UnfitPair("tls_key", "the key is encrypted; allowed: one without a passphrase, in a private file")
    pair = KeyPair(chain="\n".join(chain) + "\n", key=Secret(found[0] + "\n"))
    try:
        context_of(pair)
    except ssl.SSLError as error:
        raise UnfitPair("tls_key", _why(error)) from None
    return pair


def context_of(pair: KeyPair) -> ssl.SSLContext:
    """What connections are served with: TLS 1.2 or newer, HTTP/1.1. Raises ssl.SSLError for a pair that is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    with _file_of(pair.key.reveal() + pair.chain) as path:
        context.load_cert_chain(path, password="")  # else OpenSSL would ask at the terminal
    return context


def _text(setting: str, path: str, *, is_private: bool) -> str:
    try:
        return read_private(Path(path)) if is_private else Path(path).read_text("utf-8-sig")
    except TooOpen as error:
        raise UnfitPair(setting, str(error)) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
        raise UnfitPair(setting, f"the file cannot be read: {reason}; allowed: a readable file in PEM") from None


def _why(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not the certificate's; allowed: the key that the first certificate was made for"
    return f"the pair cannot be served ({error.reason}); allowed: a certificate and its key in PEM"


@contextlib.contextmanager
def _file_of(text: str) -> Iterator[str]:
    """A path of this text for ssl, which reads nothing else; in memory, or where only this user looks."""
    if (in_memory := getattr(os, "memfd_create", None)) is not None:
        with os.fdopen(in_memory("pair"), "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pair.pem")
        path.write_text(text)
        yield str(path)
