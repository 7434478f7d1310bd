"""The way to the other end of a transfer: a private authority, a proxy, and in whose words it fails."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cells.executor.transfers.peer import Peer
from cells.executor.transfers.settings import TransferSettings
from diego_py.errors import DiegoError, TransferNotAllowed, TransferTimedOut, TransferUnreachable
from tests.fakes.way_out import authority, proxy, saying, serves
from tests.unit.cells.executor.transfers.file_server import Answer, FileServer

NAME = "files.example"


def peer(directory: Path, *hosts: str, **settings: Any) -> Peer:
    return Peer(TransferSettings(**{"directory": directory, "hosts": ("*", *hosts), "silence_s": 5.0, **settings}))


async def get(peer: Peer, url: str) -> bytes:
    async with peer as opened, opened.get(url, {}) as response:
        with opened.border(response.url):
            return await response.read()


async def failure(peer: Peer, url: str) -> DiegoError:
    with pytest.raises(DiegoError) as caught:
        await get(peer, url)
    return caught.value


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer(answers={"/a": Answer(b"one")}) as serving:
        yield serving


async def test_a_private_authority(tmp_path: Path) -> None:
    pem = authority(tmp_path, "IP:127.0.0.1")
    async with FileServer(answers={"/a": Answer(b"one")}, tls=serves(pem)) as server:
        assert await get(peer(tmp_path, server.host, ca_file=str(pem)), server.url("/a")) == b"one"
        distrusted = await failure(peer(tmp_path, server.host), server.url("/a"))
        assert isinstance(distrusted, TransferUnreachable)
        assert "certificate" in distrusted.message
        for unreadable in ("missing.pem", "both.pem.key"):
            refused = await failure(peer(tmp_path, server.host, ca_file=str(tmp_path / unreadable)), server.url("/a"))
            assert isinstance(refused, TransferUnreachable)
            assert "transfer_ca_file" in refused.message
        assert len(server.asked) == 1


async def test_by_a_proxy(tmp_path: Path, server: FileServer) -> None:
    """Whoever is public goes by it, whom the operator named does not, and an address inside is not even asked for."""
    pem, asked = authority(tmp_path, f"DNS:{NAME}"), list[str]()
    async with proxy(server.host, asked) as url:
        by = peer(tmp_path, server.host, proxy=url)
        assert await get(by, f"http://{NAME}/a") == b"one"
        assert asked == [f"http://{NAME}/a"]
        assert await get(by, server.url("/a")) == b"one"
        assert isinstance(await failure(by, "http://10.0.0.1/a"), TransferNotAllowed)
        assert isinstance(await failure(by, f"http://localhost:{server.port}/a"), TransferNotAllowed)
        assert len(asked) == 1
    secret = FileServer(answers={"/a": Answer(b"one")}, tls=serves(pem))
    async with secret, proxy(secret.host, asked) as url:
        by = peer(tmp_path, proxy=url, ca_file=str(pem))
        assert await get(by, f"https://{NAME}/a?token=canary") == b"one"
        assert asked[1:] == [f"{NAME}:443"], "the proxy sees neither path nor secrets"


async def test_a_redirect_inside_is_not_led_there_by_a_proxy(tmp_path: Path, server: FileServer) -> None:
    asked: list[str] = []
    server.answers["/a"] = Answer(status=302, headers={"Location": "http://169.254.169.254/latest"})
    async with proxy(server.host, asked) as url:
        assert isinstance(await failure(peer(tmp_path, proxy=url), f"http://{NAME}/a"), TransferNotAllowed)
    assert asked == [f"http://{NAME}/a"]


async def test_an_upload_by_a_proxy(tmp_path: Path, server: FileServer) -> None:
    asked: list[str] = []
    server.answers["/drop"] = Answer(status=201)
    body = io.BytesIO(b"x" * 300_000)
    async with (
        proxy(server.host, asked) as url,
        peer(tmp_path, proxy=url) as opened,
        opened.post(f"http://{NAME}/drop", {}, body) as response,
    ):
        assert response.status == 201
    assert server.taken == [b"x" * 300_000]
    assert asked == [f"http://{NAME}/drop"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_will_not(tmp_path: Path, scheme: str) -> None:
    asked: list[str] = []
    async with proxy("", asked, b"407 Proxy Authentication Required") as url:
        told = await failure(peer(tmp_path, proxy=url), f"{scheme}://{NAME}/a?token=canary")
    assert isinstance(told, TransferUnreachable)
    assert "the cell's transfer_proxy answered 407" in told.message
    gone = await failure(peer(tmp_path, proxy=url), f"{scheme}://{NAME}/a?token=canary")
    assert isinstance(gone, TransferUnreachable)
    assert gone.message.startswith(f"connect to {url.removeprefix('http://')}")
    assert "canary" not in f"{told.message} {told.evidence} {gone.message} {gone.evidence}"


@pytest.mark.parametrize("text", ["proxy:3128", "http://u:p@h:3128", "http://h/x"])
def test_what_is_no_proxy(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="transfer_proxy"):
        peer(tmp_path, proxy=text)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (b"", TransferUnreachable, "broke"),
        (b"hello, world\r\n\r\n", TransferUnreachable, "broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", TransferUnreachable, "broke"),
    ],
)
async def test_whoever_speaks_no_http(tmp_path: Path, words: bytes, kind: type[DiegoError], told: str) -> None:
    async with saying(words) as host:
        error = await failure(peer(tmp_path, host), f"http://{host}/a")
    assert isinstance(error, kind)
    assert told in error.message


async def test_silence(tmp_path: Path) -> None:
    """Before the answer, and in the middle of it."""
    for words in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"):
        done = asyncio.Event()
        async with saying(words, done) as host:
            error = await failure(peer(tmp_path, host, silence_s=0.2), f"http://{host}/a")
            done.set()
        assert isinstance(error, TransferTimedOut)
        assert error.evidence is not None
        assert error.evidence["limit_s"] == 0.2
