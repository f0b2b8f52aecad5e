"""Certificates made for one test, and clients that trust nothing else."""

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Files(NamedTuple):
    """Where a certificate and its key are."""

    certificate: Path
    key: Path

    @property
    def environment(self) -> dict[str, str]:
        """What tells a gateway to serve this pair."""
        return {
            "GATEWAY__SERVER__TLS_CERTIFICATE": str(self.certificate),
            "GATEWAY__SERVER__TLS_KEY": str(self.key),
        }

    def trusting(self) -> ssl.SSLContext:
        """What a client connects with that trusts the certificate as it is now."""
        return ssl.create_default_context(cadata=self.certificate.read_text())


def make_files(folder: Path, *, passphrase: str = "", mode: int = 0o600) -> Files:
    """A new certificate for this machine and its key, in `folder`, over those that were there."""
    files = Files(folder / "certificate.pem", folder / "key.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    files.key.chmod(mode)
    files.certificate.write_bytes(_signed(key).public_bytes(Encoding.PEM))
    return files


def _signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a gateway of the tests")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)
    unsigned = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - DAY,
        not_valid_after=now + DAY,
    )
    return unsigned.add_extension(names, critical=False).sign(key, hashes.SHA256())
