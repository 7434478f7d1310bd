"""Each way in which a request comes to nothing is told by its kind, once, and nothing of aiohttp's comes through."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from attrs import define
from yarl import URL

from cells.outbound.outbound import NOT_READ_ALIKE, Kind, Outbound, Trouble, Ways
from tests.fakes.way_out import authority, proxy, saying

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"


@define
class Told(Exception):
    """A caller's error."""

    url: URL
    trouble: Trouble


async def trouble(
    url: str, named: bool = True, proxy: str = "", ca_file: str = "", silence_s: float = 10.0
) -> Trouble:
    """Of a GET with its body."""

    async def get() -> None:
        async with Outbound(ways, Told) as outbound, await outbound.request("GET", URL(url), {}) as answer:
            with outbound.border(URL(url)):
                await answer.read()

    ways = Ways(named=lambda _: named, proxy=proxy, ca_file=ca_file, connect_s=10.0, silence_s=silence_s)
    with pytest.raises(Told) as caught:
        await get()
    return caught.value.trouble


@pytest.mark.parametrize(
    ("words", "waits", "kind"),
    [
        (b"", False, Kind.BROKEN),
        (b"", True, Kind.SILENCE),
        (b"hello\r\n\r\n", False, Kind.NONSENSE),
        (HALF, False, Kind.BROKEN),
        (HALF, True, Kind.SILENCE),
    ],
)
async def test_what_is_answered(words: bytes, waits: bool, kind: Kind) -> None:
    done = asyncio.Event()
    async with saying(words, done if waits else None) as host:
        assert (await trouble(f"http://{host}/", silence_s=0.2 if waits else 10.0)).kind is kind
        done.set()


async def test_there_is_no_connection() -> None:
    found = await trouble("http://127.0.0.1:1/")
    assert found == Trouble(Kind.CONNECT, "Connection refused", "127.0.0.1:1")
    async with saying(b"no TLS\r\n") as host:
        secure = await trouble(f"https://{host}/")
    assert (secure.kind, secure.peer) == (Kind.CONNECT, host)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", "loopback"), ("10.0.0.1", "private"), ("127.1", NOT_READ_ALIKE), ("localhost", "loopback")],
)
async def test_who_is_not_named_is_not_inside(host: str, reason: str) -> None:
    assert await trouble(f"http://{host}:1/", named=False) == Trouble(Kind.NOT_ALLOWED, reason)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_will_not(scheme: str) -> None:
    async with proxy("", [], b"407 Proxy Authentication Required") as url:
        found = await trouble(f"{scheme}://files.example/", named=False, proxy=url)
    assert (found.kind, found.status) == (Kind.PROXY, 407)


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    authority(tmp_path, "IP:127.0.0.1")
    for name in ("missing", "both.pem.key"):
        found = await trouble("https://127.0.0.1:1/", ca_file=str(tmp_path / name))
        assert found.kind is Kind.AUTHORITIES
        assert name in found.reason
