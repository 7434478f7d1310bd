"""The cache: what is fetched, kept, shared, checked and given up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cells.executor.transfers import cache as caches
from cells.executor.transfers.cache import INDEX, Cache
from cells.executor.transfers.fetch import VERSION_CHARACTERS_MAX, Checksum
from cells.executor.transfers.settings import TransferSettings
from diego_py.errors import (
    ChecksumMismatch,
    DiegoError,
    DownloadDenied,
    DownloadFailed,
    DownloadNotFound,
    DownloadTooLarge,
    TransferNotAllowed,
    TransfersBroken,
    TransferTimedOut,
    TransferUnreachable,
)
from diego_py.service.clock import SystemClock
from tests.unit.cells.executor.transfers.file_server import Answer, FileServer

KEYS = ("", "key")


class QuickClock(SystemClock):
    """Nobody waits between two attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer() as serving:
        yield serving


def cache_of(directory: Path, server: FileServer, **settings: object) -> Cache:
    chosen = {"directory": directory, "hosts": (server.host,), "silence_s": 0.2, **settings}
    return Cache(TransferSettings(**chosen), QuickClock())  # type: ignore[arg-type]


async def get(cache: Cache, url: str, key: str = "key", checksum: Checksum | None = None) -> bytes:
    async with cache.content(url, key, checksum) as file:
        file.seek(0)
        return file.read()


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != INDEX)


async def test_content_with_a_key_is_kept_as_long_as_the_server_says_so(tmp_path: Path, server: FileServer) -> None:
    cache, url = cache_of(tmp_path, server), server.url("/a")
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"1"'})
    assert [await get(cache, url), await get(cache, url)] == [b"one", b"one"]
    assert [request.headers.get("If-None-Match") for request in server.asked] == [None, '"1"']
    server.answers["/a"] = Answer(b"two", headers={"ETag": '"2"'})
    assert await get(cache, url) == b"two"
    assert len(files(tmp_path)) == 1


async def test_content_without_a_key_leaves_nothing(tmp_path: Path, server: FileServer) -> None:
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"1"'})
    assert await get(cache_of(tmp_path, server), server.url("/a"), "") == b"one"
    assert files(tmp_path) == []


async def test_a_key_of_one_url_says_nothing_of_another(tmp_path: Path, server: FileServer) -> None:
    cache = cache_of(tmp_path, server)
    server.answers |= {f"/{name}": Answer(name.encode(), headers={"ETag": '"1"'}) for name in ("evil", "good")}
    assert await get(cache, server.url("/evil")) == b"evil"
    assert await get(cache, server.url("/good")) == b"good"


async def test_an_earlier_process_left_its_content_and_rubbish(tmp_path: Path, server: FileServer) -> None:
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"1"'})
    await get(cache_of(tmp_path, server), server.url("/a"))
    (tmp_path / "half.part").write_bytes(b"x")
    (tmp_path / "unpacked-x").mkdir()
    assert await get(cache_of(tmp_path, server), server.url("/a")) == b"one"
    assert server.asked[1].headers["If-None-Match"] == '"1"'
    assert len(files(tmp_path)) == 1
    (tmp_path / INDEX).write_text("not json")
    assert await get(cache_of(tmp_path, server), server.url("/a")) == b"one"
    assert "If-None-Match" not in server.asked[2].headers


async def test_those_who_ask_at_once_share_one_download(tmp_path: Path, server: FileServer) -> None:
    cache, hold = cache_of(tmp_path, server, silence_s=10.0), asyncio.Event()
    server.answers["/a"] = Answer(b"one", hold=hold)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(get(cache, server.url("/a"))) for _ in range(5)]
        await server.arrived.wait()
        hold.set()
    assert [task.result() for task in asking] == [b"one"] * 5
    assert len(server.asked) == 1


async def test_the_least_used_is_given_up_and_its_readers_go_on(tmp_path: Path, server: FileServer) -> None:
    cache = cache_of(tmp_path, server, cache_bytes_max=25)
    server.answers |= {f"/{name}": Answer(name.encode() * 10, headers={"ETag": f'"{name}"'}) for name in "abc"}
    async with cache.content(server.url("/a"), "key", None) as held:
        await get(cache, server.url("/b"))
        await get(cache, server.url("/c"))
        assert len(files(tmp_path)) == 2
        held.seek(0)
        assert held.read() == b"a" * 10
    await get(cache, server.url("/b"))
    assert "If-None-Match" in server.asked[-1].headers
    await get(cache, server.url("/a"))
    assert "If-None-Match" not in server.asked[-1].headers


async def test_what_is_given_up_while_the_server_is_asked_is_read_all_the_same(
    tmp_path: Path, server: FileServer
) -> None:
    cache, hold = cache_of(tmp_path, server, cache_bytes_max=25, silence_s=10.0), asyncio.Event()
    server.answers |= {f"/{name}": Answer(name.encode() * 10, headers={"ETag": f'"{name}"'}) for name in "abc"}
    await get(cache, server.url("/a"))
    server.answers["/a"].hold = hold
    server.arrived.clear()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(get(cache, server.url("/a")))
        await server.arrived.wait()
        await get(cache, server.url("/b"))
        await get(cache, server.url("/c"))
        hold.set()
    assert asking.result() == b"a" * 10
    await get(cache, server.url("/a"))
    assert "If-None-Match" not in server.asked[-1].headers


async def test_a_kept_file_that_somebody_removed_is_fetched_anew(tmp_path: Path, server: FileServer) -> None:
    cache = cache_of(tmp_path, server)
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"1"'})
    await get(cache, server.url("/a"))
    (tmp_path / files(tmp_path)[0]).unlink()
    assert await get(cache, server.url("/a")) == b"one"


async def test_neither_keys_nor_small_contents_nor_versions_grow_for_ever(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "ENTRIES_MAX", 3)
    cache = cache_of(tmp_path, server)
    server.answers["/a"] = Answer(b"", headers={"ETag": "x" * (VERSION_CHARACTERS_MAX + 1)})
    for number in range(5):
        await get(cache, server.url("/a"), f"key {number}")
    assert len(files(tmp_path)) == 3
    assert cache._asking == {}
    assert (tmp_path / INDEX).stat().st_size < VERSION_CHARACTERS_MAX


@pytest.mark.parametrize("key", KEYS)
async def test_a_disk_that_refuses_is_told(tmp_path: Path, server: FileServer, key: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransfersBroken) as caught:
        await get(cache_of(tmp_path / "file" / "cache", server), server.url("/a"), key)
    assert caught.value.evidence == {"errno": "ENOTDIR"}


async def test_what_is_larger_than_the_cache_is_used_once(tmp_path: Path, server: FileServer) -> None:
    server.answers["/a"] = Answer(b"x" * 30)
    assert await get(cache_of(tmp_path, server, cache_bytes_max=25), server.url("/a")) == b"x" * 30
    assert files(tmp_path) == []


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
async def test_checksums(tmp_path: Path, server: FileServer, algorithm: str, key: str) -> None:
    cache, url = cache_of(tmp_path, server), server.url("/a")
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"1"'})
    right = Checksum(algorithm, hashlib.new(algorithm, b"one").hexdigest().upper())
    assert await get(cache, url, key, right) == b"one"
    with pytest.raises(ChecksumMismatch):
        await get(cache, url, key, Checksum(algorithm, "00"))
    assert files(tmp_path) == []
    assert await get(cache, url, key, right) == b"one"


async def test_a_kept_content_that_is_not_the_right_one_is_fetched_anew(tmp_path: Path, server: FileServer) -> None:
    cache, url = cache_of(tmp_path, server), server.url("/a")
    server.answers["/a"] = Answer(b"one", headers={"ETag": '"same"'})
    await get(cache, url)
    server.answers["/a"] = Answer(b"two", headers={"ETag": '"same"'})
    assert await get(cache, url, "key", Checksum("sha1", hashlib.sha1(b"two").hexdigest())) == b"two"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (Answer(status=404), DownloadNotFound, 1),
        (Answer(status=410), DownloadNotFound, 1),
        (Answer(status=403), DownloadDenied, 1),
        (Answer(status=400), DownloadFailed, 1),
        (Answer(status=503), DownloadFailed, 4),
        (Answer(b"x" * 101), DownloadTooLarge, 1),
        (Answer(silent=True), TransferTimedOut, 4),
        (Answer(status=302), DownloadFailed, 1),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), DownloadFailed, 1),
        (Answer(status=302, headers={"Location": "/a"}), DownloadFailed, 10),
    ],
)
async def test_failures(
    tmp_path: Path, server: FileServer, answer: Answer, kind: type[DiegoError], asked: int, key: str
) -> None:
    server.answers["/a"] = answer
    with pytest.raises(kind) as caught:
        await get(cache_of(tmp_path, server, download_bytes_max=100), server.url("/a?token=canary"), key)
    assert len(server.asked) == asked
    assert files(tmp_path) == []
    assert "canary" not in f"{caught.value.message} {caught.value.evidence}"


async def test_an_attempt_after_one_that_failed(tmp_path: Path, server: FileServer) -> None:
    server.once = [Answer(b"rubbish", status=500), Answer(b"rubbish", status=502)]
    server.answers["/a"] = Answer(b"one")
    assert await get(cache_of(tmp_path, server), server.url("/a")) == b"one"


async def test_nobody_answers(tmp_path: Path, server: FileServer) -> None:
    cache = cache_of(tmp_path, server, hosts=("127.0.0.1:*",))
    with pytest.raises(TransferUnreachable):
        await get(cache, "http://127.0.0.1:1/a")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a",
        "http://localhost:{port}/a",
        "http://[::1]:{port}/a",
        "http://0:{port}/a",
        "http://0x7f.1:{port}/a",
        "http://2130706433:{port}/a",
        "http://[::ffff:127.0.0.1]:{port}/a",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a",
        "http://user:password@127.0.0.1:{port}/a",
    ],
)
async def test_private_addresses_are_not_connected_to(tmp_path: Path, server: FileServer, url: str) -> None:
    server.answers["/a"] = Answer(b"secret")
    with pytest.raises((TransferNotAllowed, TransferUnreachable)) as caught:
        await get(cache_of(tmp_path, server, hosts=("*",)), url.format(port=server.port))
    assert server.asked == []
    assert "password" not in f"{caught.value.message} {caught.value.evidence}"


async def test_only_named_hosts_where_the_operator_says_so(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(TransferNotAllowed):
        await get(cache_of(tmp_path, server, hosts=("files.example",)), server.url("/a"))


async def test_a_redirect_to_this_machine_is_judged_too_and_takes_no_credentials(
    tmp_path: Path, server: FileServer
) -> None:
    async with FileServer(answers={"/b": Answer(b"secret")}) as other:
        server.answers["/a"] = Answer(status=302, headers={"Location": other.url("/b")})
        with pytest.raises(TransferNotAllowed):
            await get(cache_of(tmp_path, server), server.url("/a"))
        assert other.asked == []
        both = cache_of(tmp_path, server, hosts=(server.host, other.host))
        assert await get(both, server.url("/a").replace("://", "://user:password@")) == b"secret"
        assert "Authorization" in server.asked[-1].headers
        assert "Authorization" not in other.asked[-1].headers
