"""A tenant's word decides where the cell connects to: nowhere but to public addresses and whom the operator named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp.resolver
import pytest
from aiohttp import web

from cells.garden.config import ImageSettings
from cells.garden.images.source import source_of
from cells.outbound import reach
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import DiegoError, Fault, RegistryFailed, RegistryNotAllowed, RegistryUnreachable
from diego_py.service.clock import SystemClock
from tests.fakes.registry import Registry, build, digest_of
from tests.fakes.way_out import authority, proxy, serves

IMAGE = build([b"content"], {"Cmd": ["true"]})
DIGEST = digest_of(IMAGE.manifest)


def call() -> Call:
    return Call.begin(SystemClock(), 20_000)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    served = Registry()
    served.add("latest", IMAGE)
    async with served.serving() as listening:
        yield listening


async def resolved(host: str, **settings: Any) -> str:
    """The digest of what `docker://HOST/app` stands for."""
    return (await source_of(f"docker://{host}/app", "", None, ImageSettings(**settings)).resolve(call())).digest


async def refused(host: str, **settings: Any) -> RegistryNotAllowed:
    with pytest.raises(DiegoError) as failed:
        await resolved(host, **settings)
    assert isinstance(failed.value.root, RegistryNotAllowed)
    return failed.value.root


@pytest.mark.parametrize(
    ("host", "address"),
    [
        *((host, "loopback") for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:7f00:1]", "[::1]")),
        *((host, "not everybody") for host in ("127.1", "0177.0.0.1", "2130706433")),
        ("0x7f.1", "loopback"),
    ],
)
async def test_the_cells_own_loopback_is_not_the_tenants(registry: Registry, host: str, address: str) -> None:
    """However it is written, and although somebody listens there."""
    port = registry.host.partition(":")[2]
    told = await refused(f"{host}:{port}")
    assert registry.requests == []
    document = chain.problem(told, call())
    assert (document.code, document.fault) == ("registry.not_allowed", Fault.CALLER)
    assert "allowed_registries" in str(document.next)
    assert document.evidence is not None
    assert address in document.evidence["address"]


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "192.168.1.1:5000", "[fd00::1]", "100.64.0.1"])
async def test_private_networks(host: str) -> None:
    """At once: nothing is sent whose answer would be waited for."""
    await refused(host)


async def test_whom_the_operator_names(registry: Registry) -> None:
    port = registry.host.partition(":")[2]
    for settings in (
        {"allowed": (registry.host,)},
        {"allowed": ("*", "127.0.0.1:*")},
        {"insecure_registries": (registry.host,)},
        {"default_registry": registry.host},
        {"deny_networks": ("127.0.0.0/8",), "allowed": (registry.host,)},
    ):
        assert await resolved(registry.host, **settings) == DIGEST
    assert await resolved("", default_registry=registry.host, allowed=()) == DIGEST
    before = len(registry.requests)
    await refused(f"localhost:{port}", allowed=("*", registry.host))
    assert len(registry.requests) == before


async def test_a_list_of_registries_is_all_there_are(registry: Registry) -> None:
    told = await refused("registry.example", allowed=("*.corp.example", registry.host))
    assert "allowed_registries" in told.message
    assert await resolved(registry.host, allowed=("*.corp.example", registry.host)) == DIGEST


async def test_a_mirror_may_be_anywhere_and_the_registry_may_not(registry: Registry) -> None:
    assert await resolved("registry.example", mirrors={"registry.example": (registry.host,)}) == DIGEST
    registry.manifests.clear()
    with pytest.raises(RegistryFailed) as failed:
        await resolved("10.0.0.1", mirrors={"10.0.0.1": (registry.host,)})
    assert [attempt.code for attempt in failed.value.attempts] == ["image.not_found"]
    assert isinstance(failed.value.root, RegistryNotAllowed)


@pytest.mark.parametrize("where", ["manifest", "token"])
async def test_a_registry_cannot_send_us_inside(registry: Registry, where: str) -> None:
    """By a redirect or for a token: whom the operator named speaks for itself only."""
    async with Registry().serving("127.0.0.2") as inside:
        inside.add("latest", IMAGE)

        async def sends(request: web.Request) -> web.StreamResponse:
            if where == "token":
                bearer = f'Bearer realm="http://{inside.host}/token"'
                return web.Response(status=401, headers={"WWW-Authenticate": bearer})
            raise web.HTTPTemporaryRedirect(f"http://{inside.host}{request.path}")

        registry.instead = sends
        told = await refused(registry.host, allowed=("*", registry.host))
        assert inside.host in str(told.evidence)
        assert inside.requests == []


def names(monkeypatch: pytest.MonkeyPatch, **addresses: list[str]) -> None:
    """Has names stand for these addresses."""

    async def resolve(self: object, host: str, port: int = 0, family: object = None) -> list[dict[str, Any]]:
        found = addresses[host.partition(".")[0]]
        return [{"hostname": host, "host": one, "port": port, "family": 2, "proto": 0, "flags": 0} for one in found]

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", resolve)


async def test_of_a_names_addresses_the_public_ones_are_used(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that stands for something else by the time of connecting is judged by what it stands for then."""
    monkeypatch.setattr(reach, "reason_against", lambda host, denied: "private" if host.startswith("10.") else "")
    names(monkeypatch, mixed=["10.0.0.1", "127.0.0.1"], inner=["10.0.0.1", "10.0.0.2"], half=["10.0.0.1", "127.0.0.9"])
    port = registry.host.partition(":")[2]
    with pytest.raises(RegistryUnreachable, match="SSL"):  # The registry speaks no TLS: but we have come to it.
        await resolved(f"mixed.example:{port}")
    told = await refused(f"inner.example:{port}")
    assert "10.0.0" not in str(told.evidence) + told.message
    await refused("half.example:1")


# By a proxy


async def test_by_a_proxy(registry: Registry, tmp_path: Path) -> None:
    """Whoever is public goes by it, whom the operator named does not, and an address inside is not even asked for."""
    certificate = authority(tmp_path, "DNS:registry.example")
    served, asked = Registry(), list[str]()
    served.add("latest", IMAGE)
    async with served.serving(tls=serves(certificate)), proxy(served.host, asked) as url:
        settings = {"proxy": url, "ca_file": str(certificate), "allowed": ("*", registry.host)}
        assert await resolved("registry.example", **settings) == DIGEST
        assert asked == ["registry.example:443"]
        assert await resolved(registry.host, **settings) == DIGEST
        await refused("10.0.0.1", **settings)
        assert asked == ["registry.example:443"]


async def test_a_proxy_that_will_not() -> None:
    asked: list[str] = []
    async with proxy("", asked, b"407 Proxy Authentication Required") as url:
        with pytest.raises(RegistryUnreachable, match="image_proxy answered 407"):
            await resolved("registry.example", proxy=url)
    with pytest.raises(RegistryUnreachable, match=r"connect to 127\.0\.0\.1:1"):
        await resolved("registry.example", proxy="http://127.0.0.1:1")
