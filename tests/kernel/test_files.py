"""Files in and out of containers, as tar streams: whose they are, what is refused, and nothing leads to the host."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden import processes, streams
from cells.garden.files.copying import COPIES_MAX, PROGRAM
from cells.garden.garden import Garden
from cells.garden.spec import ProcessSpec
from diego_py.errors import DiegoError
from tests.kernel.containers import SOON_S, call, shell, spec, start, until_printed
from tests.kernel.images import tar as packed
from tests.kernel.images import until

pytestmark = pytest.mark.kernel


def entry(name: str, content: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A directory, or with `content` a file; any other kind by its fields."""
    found = tarfile.TarInfo(name)
    found.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    found.mode = 0o755 if content is None else 0o644
    found.size = len(content or b"")
    for key, value in fields.items():
        setattr(found, key, value)
    return found, content or b""


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=kind, linkname=target)


async def stream(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


async def fetched(garden: Garden, path: str, **how: Any) -> dict[str, tarfile.TarInfo]:
    """The entries of what is at a path, by name."""
    data = b"".join([chunk async for chunk in garden.stream_out(call(), "a", path, **how)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


async def content(garden: Garden, path: str, **how: Any) -> bytes:
    data = b"".join([chunk async for chunk in garden.stream_out(call(), "a", path, **how)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        return file.read()


async def said(garden: Garden, script: str) -> str:
    told = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", script)), SOON_S)
    return told.output


async def refused(work: Any) -> str:
    """The innermost code of a failure."""
    with pytest.raises(DiegoError) as failed:
        await work
    return failed.value.root.code


@pytest.fixture
async def box(garden: Garden) -> Garden:
    await start(garden, spec("a", "/bin/sleep", "600"))
    return garden


async def test_files_are_those_of_the_user_and_missing_directories_too(box: Garden) -> None:
    archive = packed(
        entry("d", mode=0o700, uid=5, gid=6),
        entry("d/f", b"one", uid=7, gid=8, mode=0o640, mtime=1_000_000),
        entry("d/deep/er/f", b"two"),
        link("d/link", "f"),
        link("d/hard", "d/f", tarfile.LNKTYPE),
        entry("run.sh", b"#!/bin/sh\n", mode=0o4755),
    )
    await box.stream_in(call(), "a", "/home/vcap/x/y", stream(archive, 777), user="vcap")
    lines = (await said(box, "cd /home/vcap/x; stat -c '%n %u:%g %a' . y y/d y/d/f y/d/deep y/run.sh")).splitlines()
    assert lines == [
        ". 1000:1000 755",
        "y 1000:1000 755",
        "y/d 1000:1000 700",
        "y/d/f 1000:1000 640",
        "y/d/deep 1000:1000 755",
        "y/run.sh 1000:1000 4755",
    ]
    assert (
        await said(box, "cd /home/vcap/x/y/d; cat f deep/er/f; readlink link; stat -c %h%Y hard")
        == "onetwof\n21000000\n"
    )
    await box.stream_in(call(), "a", "/srv/new", stream(packed(entry("f", b"root's"))))
    assert await said(box, "stat -c %u:%g /srv/new /srv/new/f") == "0:0\n0:0\n"


async def test_directory_with_and_without_a_slash(box: Garden) -> None:
    await said(
        box,
        "mkdir -p /srv/t/sub /srv/t/empty; echo 1 > /srv/t/f; echo 2 > /srv/t/sub/g; ln -s f /srv/t/l; mkfifo /srv/t/p",
    )
    inside = {"sub", "sub/g", "f", "l", "p", "empty"}
    assert set(await fetched(box, "/srv/t")) == {"t", *(f"t/{name}" for name in inside)}
    assert set(await fetched(box, "/srv/t/")) == {".", *(f"./{name}" for name in inside)}
    assert list(await fetched(box, "/srv/t/f")) == ["f"]
    assert (await fetched(box, "/srv/t/l"))["l"].linkname == "f"


async def test_there_and_back(box: Garden) -> None:
    content_in = os.urandom(3_000_000)
    archive = packed(
        entry("big", content_in, pax_headers={"SCHILY.xattr.user.note": "h\u00e9llo"}), entry("n" * 200, b"x")
    )
    await box.stream_in(call(), "a", "/srv", stream(archive))
    assert await content(box, "/srv/big") == content_in
    assert (await fetched(box, "/srv/big"))["big"].pax_headers["SCHILY.xattr.user.note"] == "h\u00e9llo"
    assert "./" + "n" * 200 in await fetched(box, "/srv/")
    names = {name: (e.uid, e.gid, e.uname) for name, e in (await fetched(box, "/home/vcap")).items()}
    assert names == {"vcap": (1000, 1000, "")}


async def test_an_existing_file_makes_way_and_a_directory_does_not(box: Garden) -> None:
    await said(box, "mkdir /srv/d; echo old > /srv/f; ln -s /etc/passwd /srv/l; cp /etc/passwd /srv/before")
    await box.stream_in(
        call(), "a", "/srv", stream(packed(entry("f", b"new"), entry("l", b"no longer a link"), entry("d")))
    )
    assert await said(box, "cat /srv/f /srv/l; cmp /srv/before /etc/passwd") == "newno longer a link"
    assert await refused(box.stream_in(call(), "a", "/srv", stream(packed(entry("d", b"file"))))) == "files.kind_wrong"


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([link("l", "/etc"), entry("l/passwd", b"x")], "files.kind_wrong"),
        ([link("l", "../../../../../.."), entry("l/tmp/x", b"x")], "files.kind_wrong"),
        ([entry("../x", b"x")], "files.archive_refused"),
        ([entry("a/../../x", b"x")], "files.archive_refused"),
        ([entry("n", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "files.archive_refused"),
        ([link("h", "../../etc/shadow", tarfile.LNKTYPE)], "files.archive_refused"),
        ([link("h", "nothing", tarfile.LNKTYPE)], "files.missing"),
    ],
)
async def test_entries_that_are_refused(box: Garden, entries: list[Any], code: str) -> None:
    assert await refused(box.stream_in(call(), "a", "/srv/in", stream(packed(*entries)))) == code


async def test_an_absolute_name_is_below_the_destination(box: Garden) -> None:
    await box.stream_in(call(), "a", "/srv/in", stream(packed(entry("/etc/passwd", b"mine"))))
    assert await said(box, "cat /srv/in/etc/passwd; head -c 4 /etc/passwd") == "mineroot"


async def test_what_is_no_archive_or_half_of_one(box: Garden) -> None:
    assert await refused(box.stream_in(call(), "a", "/srv", stream(b"hello" * 1000))) == "files.archive_refused"
    half = packed(entry("f", bytes(100_000)))[:50_000]
    assert await refused(box.stream_in(call(), "a", "/srv", stream(half))) == "files.archive_refused"
    await box.stream_in(call(), "a", "/srv", stream(packed() + b"\0" * 1_000_000))


async def test_paths_and_users_that_do_not_work(box: Garden) -> None:
    good = packed(entry("f", b"x"))
    assert await refused(anext(box.stream_out(call(), "a", "/nope"))) == "files.missing"
    assert await refused(anext(box.stream_out(call(), "a", "/etc/passwd/x"))) == "files.kind_wrong"
    assert await refused(anext(box.stream_out(call(), "a", "/etc/passwd/"))) == "files.kind_wrong"
    assert await refused(anext(box.stream_out(call(), "a", "/root/", user="vcap"))) == "files.denied"
    assert await refused(anext(box.stream_out(call(), "a", "of-its-home"))) == "files.missing"
    assert await refused(anext(box.stream_out(call(), "a", "a\0b"))) == "invalid_spec"
    assert await refused(anext(box.stream_out(call(), "nobody", "/etc"))) == "container_not_found"
    assert await refused(box.stream_in(call(), "a", "/etc/passwd", stream(good))) == "files.kind_wrong"
    assert await refused(box.stream_in(call(), "a", "/root/x", stream(good), user="vcap")) == "files.denied"
    assert await refused(box.stream_in(call(), "a", "/proc/sys/x", stream(good))) == "files.missing"
    assert await refused(box.stream_in(call(), "a", "/srv", stream(good), user="who")) == "garden.user_not_found"


async def test_too_much(new_garden: Callable[..., Any]) -> None:
    box = await new_garden(copy_bytes_max=1000, copy_entries_max=5)
    await start(box, spec("a", "/bin/sleep", "600"))
    large, many = packed(entry("f", bytes(1001))), packed(*(entry(f"d{i}") for i in range(6)))
    assert await refused(box.stream_in(call(), "a", "/srv", stream(large))) == "files.too_large"
    assert await refused(box.stream_in(call(), "a", "/srv", stream(many))) == "files.too_large"
    await said(box, "head -c 1001 /dev/zero > /srv/large; mkdir -p /srv/many/1/2/3/4/5/6/7")
    with pytest.raises(DiegoError):
        await fetched(box, "/srv/large")
    with pytest.raises(DiegoError):
        await fetched(box, "/srv/many")


async def test_no_space(box: Garden) -> None:
    """/dev is a small file system in memory of the container's own."""
    archive = packed(entry("f", bytes(100_000_000)))
    assert await refused(box.stream_in(call(), "a", "/dev/shm", stream(archive, 1 << 20))) == "files.no_space"


async def test_before_it_runs_and_after_it_ended(garden: Garden) -> None:
    await garden.create(call(), shell("a", "cat /home/vcap/in/f; echo written > /root/out"))
    await garden.stream_in(call(), "a", "/home/vcap/in", stream(packed(entry("f", b"given\n"))), user="vcap")
    await garden.run(call(), "a")
    assert "given" in (await garden.wait("a")).log_tail
    assert await content(garden, "/root/out") == b"written\n"
    await garden.stream_in(call(), "a", "/home/vcap/late", stream(packed(entry("f", b"x"))), user="vcap")
    assert (await fetched(garden, "/home/vcap/late/f"))["f"].uid == 1000
    assert set(await fetched(garden, "/proc/")) == {"."}


async def test_links_lead_where_they_lead_in_the_container(box: Garden, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    await said(
        box, f"mkdir -p /links; ln -s / /links/root; ln -s {tmp_path} /links/host; ln -s /proc/1/root /links/proc"
    )
    assert await refused(anext(box.stream_out(call(), "a", "/links/host/secret"))) == "files.missing"
    assert await content(box, "/links/root/srv/www/index.html") == b"hello\n"
    await box.stream_in(call(), "a", f"{tmp_path}/made", stream(packed(entry("f", b"x"))))
    assert os.listdir(tmp_path) == ["secret"]
    await box.stream_in(call(), "a", "/links/root/../../../../srv/up", stream(packed(entry("f", b"x"))))
    assert await said(box, "cat /srv/up/f") == "x"


async def test_a_container_that_swaps_directories_for_links_gets_nothing_on_the_host(
    garden: Garden, tmp_path: Path
) -> None:
    """As root of the container, which may do all that it can; the links lead to a directory that only the host has."""
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("of the host")
    swap = f"""
        mkdir -p /work/a{tmp_path}; ln -s {tmp_path} /work/link; ln -s /../../..{tmp_path} /work/up; echo ready
        while :; do
            mv /work/a /work/b; mv /work/link /work/a; mv /work/a /work/link
            mv /work/up /work/a; mv /work/a /work/up; mv /work/b /work/a
        done 2>/dev/null
    """
    await start(garden, shell("a", swap))
    await until_printed(garden, "a", "ready")
    archive = packed(*(entry(f"d{i}/secret", b"from outside") for i in range(20)))
    for _ in range(12):
        with contextlib.suppress(DiegoError):
            await garden.stream_in(call(), "a", "/work/a", stream(archive))
        with contextlib.suppress(DiegoError):
            for name in await fetched(garden, "/work/a/"):
                assert not name.endswith("secret") or "d" in name
        with contextlib.suppress(DiegoError):
            assert await content(garden, "/work/a/secret") != b"of the host"
    assert os.listdir(tmp_path) == ["secret"]
    assert (tmp_path / "secret").read_text() == "of the host"


async def test_the_child_has_no_more_than_the_containers_root(box: Garden) -> None:
    chunks = box.stream_out(call(), "a", "/bin/busybox")
    await anext(chunks)
    (copy,) = box._box("a").copies
    home = Path(f"/proc/{copy.child.pid}")
    status = (home / "status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    first_id = box._host.first_id(box._box("a"))
    assert fields["Uid"].split() == [str(first_id)] * 4
    assert int(fields["CapPrm"], 16) == 0x8000001B  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP
    assert fields["NoNewPrivs"] == "1"
    assert len(os.listdir(home / "fd")) <= 5
    assert os.readlink(home / "ns/user") == os.readlink(f"/proc/{box._box('a').init.pid}/ns/user")
    await chunks.aclose()


async def test_destroy_and_a_client_that_stopped_reading(box: Garden) -> None:
    await said(box, "head -c 50000000 /dev/zero > /srv/large")
    chunks = box.stream_out(call(), "a", "/srv/large")
    await anext(chunks)
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield packed(entry("f", bytes(100_000)))[:1000]
        begun.set()
        await gate.wait()

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(refused(box.stream_in(call(), "a", "/srv", slow())))
        await begun.wait()
        await box.destroy(call(), "a")
        gate.set()
    assert writing.result() == "files.failed"
    with pytest.raises(DiegoError):
        async for _ in chunks:
            pass


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when the child of a copy was begun, and to be set to let it be known."""
    begun, go_on, writer = asyncio.Event(), asyncio.Event(), streams.writer

    async def held(fd: int) -> asyncio.StreamWriter:
        begun.set()
        await go_on.wait()
        return await writer(fd)

    monkeypatch.setattr(streams, "writer", held)
    return begun, go_on


def copiers() -> set[int]:
    return processes.children() & set(processes.mentioning(PROGRAM))


async def test_a_client_that_goes_while_its_copy_begins(
    box: Garden, begins: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, go_on = begins
    async with asyncio.TaskGroup() as group:
        copying = group.create_task(box.stream_in(call(), "a", "/srv", stream(b"")))
        await begun.wait()
        copying.cancel()
        go_on.set()
    assert copying.cancelled()
    assert copiers() == set()


async def test_a_copy_that_begins_while_its_container_is_destroyed(
    box: Garden, begins: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, go_on = begins
    async with asyncio.TaskGroup() as group:
        copying = group.create_task(refused(box.stream_in(call(), "a", "/srv", stream(b""))))
        await begun.wait()
        group.create_task(box.destroy(call(), "a"))
        await until(lambda: box.containers()[0].state == "destroying")
        go_on.set()
    assert copying.result() == "illegal_transition"
    assert copiers() == set()


async def test_an_archive_that_breaks_off_is_no_archive(box: Garden) -> None:
    """The client's connection, say: the copy ends with it and waits for nothing more."""

    async def breaks() -> AsyncIterator[bytes]:
        yield packed(entry("a", b"x"))[:600]
        raise ConnectionResetError

    with pytest.raises(DiegoError):
        async with asyncio.timeout(SOON_S):
            await box.stream_in(call(), "a", "/srv", breaks())
    assert copiers() == set()


async def test_more_copies_than_the_most_are_refused(box: Garden) -> None:
    many = [box.stream_out(call(), "a", "/bin/busybox") for _ in range(COPIES_MAX)]
    await asyncio.gather(*(anext(one) for one in many))
    assert await refused(anext(box.stream_out(call(), "a", "/etc"))) == "garden.pool_exhausted"
    for one in many:
        await one.aclose()
    assert "passwd" in await fetched(box, "/etc/passwd")
