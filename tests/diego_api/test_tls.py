"""The listener with TLS: who has no certificate of the authority gets nothing, and new certificates are taken up."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from attrs import frozen

from bbs.config import BbsConfig, DiegoWireConfig
from diego_py import wire
from diego_py.embedded import development_ca
from diego_py.embedded.development_ca import Authority
from diego_py.http.tls import TlsFiles
from tests.chain.installation import Installation
from tests.diego_api.client import DiegoClient


@frozen
class Site:
    """An installation with TLS, and what it was made with."""

    installation: Installation
    authority: Authority
    directory: Path

    @property
    def url(self) -> str:
        assert self.installation.bbs.diego_listener is not None
        return f"https://127.0.0.1:{self.installation.bbs.diego_listener.port}"

    def context(self, trusted: Authority, shown: Authority | None) -> ssl.SSLContext:
        """A client's, that trusts one authority and shows a certificate of another one."""
        context = ssl.create_default_context(cadata=trusted.certificate_pem.decode())
        if shown is not None:
            certificate, key = self.directory / "client.pem", self.directory / "client.key"
            shown.issue("client").write(certificate, key)
            context.load_cert_chain(certificate, key)
        return context

    async def ping(self, context: ssl.SSLContext) -> bool:
        async with aiohttp.ClientSession() as session:
            answer = await DiegoClient(self.url, session, context).ask("/v1/ping")
            return bool(answer["available"])


@pytest.fixture
async def site(open_directory: Path, database_dsn: str) -> AsyncIterator[Site]:
    authority = Authority.make()
    files = development_ca.write(authority, open_directory)
    async with Installation(open_directory, open_directory, database_dsn) as made:
        await made.start_bbs(diego=DiegoWireConfig(listen_port=0, tls=files))
        yield Site(made, authority, open_directory)


async def test_only_who_shows_a_certificate_of_the_authority_is_served(site: Site) -> None:
    assert await site.ping(site.context(site.authority, site.authority))
    for shown in (None, Authority.make()):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await site.ping(site.context(site.authority, shown))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await DiegoClient(site.url.replace("https", "http"), session).ask("/v1/ping")


async def test_new_certificates_are_taken_up(site: Site) -> None:
    newer = Authority.make()
    (site.directory / "bbs.key").write_text("half")
    assert await site.ping(site.context(site.authority, site.authority)), "the last ones stay"
    assert "certificates_not_renewed" in site.installation.log_text
    development_ca.write(newer, site.directory)
    assert await site.ping(site.context(newer, newer))
    assert "certificates_renewed" in site.installation.log_text
    for trusted, shown in ((site.authority, newer), (newer, site.authority)):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await site.ping(site.context(trusted, shown))


async def test_certificates_of_the_development_authority(site: Site) -> None:
    from cryptography import x509

    issued = x509.load_pem_x509_certificate((site.directory / "bbs.pem").read_bytes())
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address("127.0.0.1") in names.get_values_for_type(x509.IPAddress)
    assert issued.not_valid_after_utc > datetime.datetime.now(datetime.UTC)
    assert (site.directory / "bbs.key").stat().st_mode & 0o077 == 0


def test_plain_http_is_for_loopback() -> None:
    DiegoWireConfig(listen_host="::1")
    with pytest.raises(ValueError, match="tls"):
        DiegoWireConfig(listen_host="0.0.0.0")
    tls = {"authority": "/ca", "certificate": "/cert", "key": "/key"}
    config = wire.decode(BbsConfig, wire.encode({"dsn": "x", "diego": {"listen_host": "0.0.0.0", "tls": tls}}))
    assert config.diego == DiegoWireConfig(listen_host="0.0.0.0", tls=TlsFiles(**tls))


def test_only_what_is_not_executed_may_be_ignored() -> None:
    DiegoWireConfig(ignored_fields=("network",))
    with pytest.raises(ValueError, match="memory_mb"):
        DiegoWireConfig(ignored_fields=("memory_mb",))
