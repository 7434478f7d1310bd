"""Certificates for one machine: an authority, and what it signs for a BBS and its clients. For development only."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from diego_py.http.tls import TlsFiles

VALID = timedelta(days=365)
CLOCKS_APART = timedelta(minutes=5)
HOST_NAMES = ("localhost", "bbs.service.cf.internal")
"""Also the name by which Diego's clients know the BBS."""
ADDRESSES = ("127.0.0.1", "::1")


@frozen
class Certificate:
    """A certificate with its key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def write(self, certificate: Path, key: Path) -> None:
        """As two files; the key for this user only."""
        _write(key, self.key_pem, 0o600)
        _write(certificate, self.certificate_pem, 0o644)


@frozen
class Authority:
    """Signs certificates. Its key is kept nowhere."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("diego development authority")
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True).add_extension(identifier, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, name: str) -> Certificate:
        """A certificate that its owner can show as a server of this machine and as a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host) for host in HOST_NAMES]
        addresses = [x509.IPAddress(ip_address(address)) for address in ADDRESSES]
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = _builder(_name(name), self.certificate.subject, key).add_extension(usages, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        builder = builder.add_extension(signer, critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Certificate(signed.public_bytes(Encoding.PEM), key_pem)


def write(authority: Authority, directory: Path) -> TlsFiles:
    """The authority's certificate, and certificates with keys for a BBS and a client, as files below `directory`."""
    files = TlsFiles(
        authority=str(directory / "ca.pem"), certificate=str(directory / "bbs.pem"), key=str(directory / "bbs.key")
    )
    authority.issue("client").write(directory / "client.pem", directory / "client.key")
    authority.issue("bbs").write(Path(files.certificate), Path(files.key))
    _write(Path(files.authority), authority.certificate_pem, 0o644)
    return files


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + VALID)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all: whoever reads the old file has the old file."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        file.write(content)
    new.rename(path)
