"""Downloads into and uploads out of a container of the fake garden; unpacking is done by the real child."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cells.executor.steps.step import Site
from cells.executor.transfers import archives, transfers
from cells.executor.transfers.settings import TransferSettings
from cells.garden import processes
from cells.garden.images.unpack import UnpackLimits
from diego_py.errors import (
    ArchiveCorrupt,
    ArchiveTooLarge,
    ArchiveUnsafe,
    DiegoError,
    DownloadNotFound,
    TransfersBroken,
    UploadFailed,
    UploadMissing,
    UploadTooLarge,
)
from diego_py.models.actions import Action, ChecksumAlgorithm, DownloadAction, UploadAction
from diego_py.service.clock import SystemClock
from tests.fakes.garden import FakeGarden
from tests.unit.cells.executor.steps.site import HANDLE, lines, perform, sh, site
from tests.unit.cells.executor.transfers.file_server import Answer, FileServer, tar, tgz, zipped

FILES = {"bin/app": b"#!/bin/sh", "notes": b"x" * 3000}
unpacks = pytest.mark.skipif(os.geteuid() != 0, reason="the child that unpacks needs root")


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer() as serving:
        yield serving


@pytest.fixture
async def at(tmp_path: Path, server: FileServer) -> Site:
    garden, clock = FakeGarden(), SystemClock()
    settings = TransferSettings(directory=tmp_path, hosts=(server.host,), upload_bytes_max=100_000, attempts_max=1)
    moving = transfers.Transfers(garden, settings, UnpackLimits(bytes_max=10_000), clock)  # type: ignore[arg-type]
    return await site(garden, transfers=moving)


def garden_of(at: Site) -> FakeGarden:
    assert isinstance(at.garden, FakeGarden)
    return at.garden


def download(url: str, to: str = "/srv", **more: object) -> Action:
    return Action(download=DownloadAction(from_=url, to=to, user="vcap", **more))  # type: ignore[arg-type]


def upload(path: str, url: str, **more: object) -> Action:
    return Action(upload=UploadAction(from_=path, to=url, user="vcap", **more))  # type: ignore[arg-type]


@unpacks
@pytest.mark.parametrize("pack", [tar, tgz, zipped])
@pytest.mark.parametrize("to", ["/srv", "/srv/"])
async def test_archives_of_each_kind(at: Site, server: FileServer, pack: Callable[..., bytes], to: str) -> None:
    server.answers["/a"] = Answer(pack(FILES))
    await perform(download(server.url("/a"), to), at)
    assert garden_of(at).files_of(HANDLE) == {f"/srv/{name}": content for name, content in FILES.items()}
    assert lines(garden_of(at)) == []


@unpacks
async def test_a_relative_path_is_one_in_the_home(at: Site, server: FileServer) -> None:
    server.answers["/a"] = Answer(tgz({"app": b"x"}))
    await perform(download(server.url("/a"), "."), at)
    assert garden_of(at).files_of(HANDLE) == {"/root/app": b"x"}


@unpacks
async def test_what_is_told_and_kept(at: Site, server: FileServer, tmp_path: Path) -> None:
    content = tgz({"app": b"x"})
    server.answers["/a"] = Answer(content, headers={"ETag": '"1"'})
    more = {"checksum_algorithm": ChecksumAlgorithm.MD5, "checksum_value": hashlib.md5(content).hexdigest()}
    await perform(download(server.url("/a"), artifact="droplet", cache_key="k", log_source="STG", **more), at)
    told = f"Downloaded droplet ({len(content)}B)"
    assert lines(garden_of(at)) == [("STG", "Downloading droplet..."), ("STG", told)]
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_download_that_fails_is_told(at: Site, server: FileServer) -> None:
    with pytest.raises(DownloadNotFound):
        await perform(download(server.url("/none"), artifact="droplet"), at)
    assert lines(garden_of(at))[1] == ("APP", "Failed to download droplet: 127.0.0.1 answered 404")


@unpacks
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"no archive", ArchiveCorrupt),
        (tgz(FILES)[:-9], ArchiveCorrupt),
        (tar({"../../etc/passwd": b"x"}), ArchiveUnsafe),
        (tgz({"big": bytes(20_000)}), ArchiveTooLarge),
    ],
)
async def test_archives_that_are_refused(
    at: Site, server: FileServer, content: bytes, kind: type[DiegoError], tmp_path: Path
) -> None:
    server.answers["/a"] = Answer(content)
    with pytest.raises(kind):
        await perform(download(server.url("/a")), at)
    assert garden_of(at).files_of(HANDLE) == {}
    assert list(tmp_path.iterdir()) == []


@unpacks
async def test_who_takes_no_more_leaves_nobody_at_work(tmp_path: Path) -> None:
    (directory := tmp_path / "directory").mkdir()
    before = processes.children()
    with (tmp_path / "archive").open("w+b") as file:
        file.write(tar({"big": bytes(1 << 20)}))
        file.flush()
        async with archives.unpacked(file, directory, UnpackLimits()) as stream:
            assert await anext(stream)
            assert processes.children() > before
    assert processes.children() == before
    assert list(directory.iterdir()) == []


async def test_the_event_loop_copies_no_upload(at: Site, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    extract, threads = transfers._extract, list[int]()

    def noted(*files: object) -> None:
        threads.append(threading.get_ident())
        extract(*files)  # type: ignore[arg-type]

    monkeypatch.setattr(transfers, "_extract", noted)
    server.answers["/put"] = Answer()
    garden_of(at).files_of(HANDLE)["/out"] = b"x"
    await perform(upload("/out", server.url("/put")), at)
    assert server.taken == [b"x"]
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


async def test_an_upload_that_the_disk_refuses(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    garden = FakeGarden()
    settings = TransferSettings(directory=tmp_path / "file" / "transfers", hosts=(server.host,))
    moving = transfers.Transfers(garden, settings, UnpackLimits(), SystemClock())  # type: ignore[arg-type]
    place = await site(garden, transfers=moving)
    garden.files_of(HANDLE)["/out"] = b"x"
    with pytest.raises(TransfersBroken):
        await perform(upload("/out", server.url("/put")), place)


async def test_upload(at: Site, server: FileServer, tmp_path: Path) -> None:
    server.answers["/put"] = Answer(status=201)
    await perform(sh("echo result > /out; exit 0", suppress_log_output=True), at)
    await perform(upload("/out", server.url("/put"), artifact="result"), at)
    assert server.taken == [b"result\n"]
    assert server.asked[0].method == "POST"
    assert server.asked[0].headers["Content-MD5"] == base64.b64encode(hashlib.md5(b"result\n").digest()).decode()
    assert [text for _, text in lines(garden_of(at))] == ["Uploading result...", "Uploaded result (7B)"]
    assert list(tmp_path.iterdir()) == []


async def test_uploads_that_fail(at: Site, server: FileServer) -> None:
    garden_of(at).files_of(HANDLE)["/large"] = bytes(200_000)
    garden_of(at).files_of(HANDLE)["/out"] = b"x"
    with pytest.raises(UploadMissing):
        await perform(upload("/none", server.url("/put")), at)
    with pytest.raises(UploadTooLarge):
        await perform(upload("/large", server.url("/put")), at)
    assert server.asked == []
    for status in (302, 404, 500):
        server.answers["/put"] = Answer(status=status, headers={"Location": server.url("/elsewhere")})
        with pytest.raises(UploadFailed):
            await perform(upload("/out", server.url("/put")), at)
    assert len(server.asked) == 3
