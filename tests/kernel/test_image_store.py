"""Containers from images: layers are fetched and unpacked once, shared, kept while used, and never half there."""

from __future__ import annotations

import asyncio
import gzip
import json
import lzma
import os
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.images import provide
from cells.garden.images.collection import StoredLayer
from cells.garden.images.layer_files import LayerFiles
from cells.garden.images.source import ImageConfig
from cells.garden.images.store import FETCHED_AT_ONCE, LAYERS_MAX
from cells.garden.spec import ContainerSpec, MainProcess, ProcessSpec
from diego_py.chain import problem
from diego_py.errors import DiegoError, NoSpace, RegistryUnreachable
from tests.fakes import zstd
from tests.kernel.containers import SOON_S, call, output, shell, start
from tests.kernel.images import MemorySource, busybox, link, member, tar, until

pytestmark = pytest.mark.kernel

DISK_INODES = 1024
DISK_OVERHEAD = 768 << 10
"""Of a small ext4: its inodes and directories, and what it rounds up."""

IMAGE = "docker:///test"


@cache
def base() -> bytes:
    return tar(*busybox())


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[MemorySource], MemorySource]:
    """Makes every reference stand for this source's image."""

    def now(source: MemorySource) -> MemorySource:
        monkeypatch.setattr(provide, "source_of", lambda spec, config: source)
        return source

    return now


Offer = Callable[[MemorySource], MemorySource]


def from_image(handle: str, script: str, **more: Any) -> ContainerSpec:
    return shell(handle, script, rootfs=IMAGE, **more)


def images(garden: Garden) -> Path:
    return Path(garden.config.state_dir, "images")


def half_made(garden: Garden) -> list[str]:
    """Everything in the store that is no whole layer."""
    layers = [path.name for path in (images(garden) / "layers").iterdir() if "." in path.name]
    return [*layers, *(path.name for path in (images(garden) / "blobs").iterdir())]


async def test_layers_make_one_tree(garden: Garden, offer: Offer) -> None:
    """Whiteouts, opaque directories, replaced types, modes of directories without an entry, set-user-id, hard links."""
    offer(
        MemorySource(
            [
                base(),
                tar(
                    *(member(name) for name in ("opaque/", "below/", "turned/")),
                    member("opaque/old", b"old"),
                    member("below/gone", b"gone"),
                    member("below/stays", b"stays"),
                    member("turned/inside"),
                    member("private/", mode=0o700, uid=1001, gid=1001),
                    member("private/one", b"1"),
                    member("setuid", b"x", mode=0o4755, uid=5, gid=6),
                ),
                tar(
                    member("opaque/.wh..wh..opq"),
                    member("opaque/new", b"new"),
                    member("below/.wh.gone"),
                    member("turned", b"a file now"),
                    member("private/two", b"2"),
                    member("tmp/left", b"here"),
                    member("one", b"same"),
                    link("other", "one", tarfile.LNKTYPE),
                ),
            ]
        )
    )
    script = (
        "ls /opaque /below; cat /turned; echo; stat -c '%a %u' /private /tmp /setuid; cat /private/*; echo;"
        "stat -c '%h' /other; echo x > /below/mine; ls /below; id -u"
    )
    assert await output(garden, from_image("a", script)) == [
        *("/below:", "stays", "", "/opaque:", "new"),
        "a file now",
        *("700 1001", "1777 0", "4755 5"),
        "12",
        "2",
        *("mine", "stays"),
        "0",
    ]


async def test_the_image_speaks_where_the_container_is_silent(garden: Garden, offer: Offer) -> None:
    config = ImageConfig(
        env=(("FROM", "image"), ("BOTH", "image"), ("PATH", "/bin")),
        user="alice",
        working_dir="/tmp",
        entrypoint=("/bin/sh", "-c"),
        cmd=("id -u; pwd; echo $FROM $BOTH",),
    )
    offer(MemorySource([base()], config))
    silent = ContainerSpec(handle="a", rootfs=IMAGE, path="", env=(("BOTH", "container"),))
    made = await garden.create(call(), silent)
    script = "id -u; pwd; echo $FROM $BOTH"
    assert made.process == MainProcess("/bin/sh", ("-c", script), "/tmp", "alice", 1001, 1001)
    await garden.run(call(), "a")
    await garden.wait("a")
    assert [line.text async for line in garden.logs("a")] == ["1001", "/tmp", "image container"]
    explicit = from_image("b", "id -u; pwd", user="root", cwd="/etc")
    assert await output(garden, explicit) == ["0", "/etc"]


async def test_a_layer_that_hides_all_below(garden: Garden, offer: Offer) -> None:
    """And what is opaque without an entry of its own has nothing of what it hides: neither content nor mode."""
    below = tar(member("hidden"), member("kept/", mode=0o700), member("kept/old"), member("kept/in/", mode=0o711))
    hides = tar(member(".wh..wh..opq"), *busybox())
    above = tar(member("kept/in/new"), member("over/in/x"))
    covered = tar(member("over/", mode=0o750), member("over/in/", mode=0o711), member("over/in/y"))
    again = tar(member("over/.wh..wh..opq"), member("over/in/z"))
    offer(MemorySource([below, hides, above]))
    script = "ls -d /hidden /kept/old 2>&1 | wc -l; stat -c '%a %n' /kept /kept/in; ls /kept/in"
    assert await output(garden, from_image("a", script)) == ["2", "755 /kept", "755 /kept/in", "new"]
    offer(MemorySource([below, base(), covered, again]))
    script = "ls -d /hidden /kept/old; stat -c '%a %n' /over /over/in; ls /over/in"
    assert await output(garden, from_image("b", script)) == [
        *("/hidden", "/kept/old", "750 /over", "755 /over/in", "z"),
    ]


async def test_directories_that_were_replaced(garden: Garden, offer: Offer) -> None:
    """By a file, which keeps its own time, by links that lead nowhere, and on the way to a mark; in the same layer."""
    directories = [member(name, mtime=1) for name in ("file/", "file/in/", "loop/", "loop/in/", "stays/", "d/")]
    marked = [link("s", "d"), member("s/opaque/.wh..wh..opq"), member("s/implicit/f")]
    replaced = [member("file", b"x", mtime=2), link("loop", "loop"), link("s", "nowhere"), member("d", b"now a file")]
    offer(MemorySource([base(), tar(*directories, *marked, *replaced)]))
    script = "stat -c %Y /file /stays; readlink /loop; readlink /s; cat /d"
    assert await output(garden, from_image("a", script)) == ["2", "1", "loop", "nowhere", "now a file"]


async def test_many_layers(garden: Garden, offer: Offer) -> None:
    """Their paths would never fit into the options of a mount."""
    more = [tar(member(f"layer-{number}", b"x")) for number in range(LAYERS_MAX)]
    offer(MemorySource([base(), *more[:64]], raw=True))
    assert await output(garden, from_image("a", "ls -d /layer-* | wc -l")) == ["64"]
    offer(MemorySource([base(), *more], raw=True))
    error = await fails(garden)
    assert error.root.code == "image.unsupported"
    assert "129" in error.root.message


async def fails(garden: Garden) -> DiegoError:
    """How creating a container from the image fails, after a look that nothing of it is there."""
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), from_image("a", "true"))
    assert garden.containers() == []
    assert not list(Path(garden.config.state_dir, "containers").iterdir())
    assert half_made(garden) == []
    return failed.value


async def test_each_layer_comes_once(garden: Garden, offer: Offer) -> None:
    source = offer(MemorySource([base(), tar(member("two"))], hold=asyncio.Event()))
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(garden.create(call(), from_image(f"c{number}", "true")))
        await until(lambda: len(source.fetched) == 2)
        assert source.hold is not None
        source.hold.set()
    assert sorted(source.fetched) == [0, 1]
    assert len(garden.containers()) == 5
    # Another image on the same base fetches what is new.
    third = offer(MemorySource([base(), tar(member("three"))]))
    await start(garden, from_image("third", "true"))
    assert third.fetched == [1]


async def until_waiting(garden: Garden, count: int) -> None:
    """Return when so many wait for one layer."""
    await until(lambda: any(pull.waiting == count for pull in garden._store._pulls.values()))


async def test_who_leaves_harms_nobody(garden: Garden, offer: Offer) -> None:
    """The one who began the work is cancelled, another runs out of budget; the third has its container."""
    source = offer(MemorySource([base()], hold=asyncio.Event()))
    first = asyncio.gather(garden.create(call(), from_image("first", "true")))
    await until(lambda: source.fetched == [0])
    third = asyncio.gather(garden.create(call(), from_image("third", "true")))
    await until_waiting(garden, 2)
    short = asyncio.gather(garden.create(call(1000), from_image("short", "true")), return_exceptions=True)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    [spent] = await short
    assert isinstance(spent, DiegoError)
    assert spent.root.code == "budget_spent"
    assert source.ended == []
    assert source.hold is not None
    source.hold.set()
    await third
    assert source.fetched == [0]
    assert [container.handle for container in garden.containers()] == ["third"]


async def test_the_last_one_ends_the_work(garden: Garden, offer: Offer) -> None:
    source = offer(MemorySource([base(), tar(member("two"))], hold=asyncio.Event()))
    creating = asyncio.gather(garden.create(call(), from_image("a", "true")))
    await until(lambda: sorted(source.fetched) == [0, 1])
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    assert sorted(source.ended) == [0, 1]
    assert garden._store._pulls == {}
    assert (half_made(garden), garden.containers()) == ([], [])
    source.hold = None
    await start(garden, from_image("a", "true"))


async def test_who_leaves_when_a_layer_is_just_done(
    garden: Garden, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its place by then counts: nobody fetches it again, and nobody falls over it."""
    done, goes_on, finish = threading.Event(), threading.Event(), LayerFiles.finish

    def finished(self: LayerFiles, *arguments: Any) -> StoredLayer:
        layer = finish(self, *arguments)
        done.set()
        goes_on.wait(10)
        return layer

    monkeypatch.setattr(LayerFiles, "finish", finished)
    source = offer(MemorySource([base()]))
    creating = asyncio.gather(garden.create(call(), from_image("a", "true")))
    await until(done.is_set)
    creating.cancel()
    await until(lambda: garden._store._ending != {})
    goes_on.set()
    await asyncio.gather(creating, return_exceptions=True)
    assert len(garden._store.layers) == 1
    await start(garden, from_image("a", "true"))
    assert source.fetched == [0]


async def test_room_is_made_on_a_full_disk(
    new_garden: Callable[..., Any], offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note of a removal cannot be written: the create says so, and the store knows what it still has."""
    garden: Garden = await new_garden(image_store_bytes_max=3 << 20)
    old = offer(MemorySource([base(), tar(member("old", bytes(2 << 20)))]))
    assert await output(garden, from_image("a", "true")) == []
    layers, removed = images(garden) / "layers", images(garden) / "removals.jsonl"
    removed.symlink_to("/dev/full")
    offer(MemorySource([base(), tar(member("new", bytes(2 << 20)))]))
    assert (await fails(garden)).root.code == "garden.no_space"
    assert {layer.chain_id for layer in garden._store.layers} == {path.name for path in layers.iterdir()}
    removed.unlink()
    old.fetched.clear()
    offer(old)
    assert await output(garden, from_image("a", "ls /old")) == ["/old"]
    assert old.fetched == [1]


async def test_anothers_credentials_are_not_ours(garden: Garden, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = MemorySource([base()], hold=asyncio.Event(), failures={0: RegistryUnreachable("no way")})
    good = MemorySource([base()])
    monkeypatch.setattr(provide, "source_of", lambda spec, config: bad if spec.handle == "bad" else good)
    failing = asyncio.gather(garden.create(call(), from_image("bad", "true")), return_exceptions=True)
    await until(lambda: bad.fetched == [0])
    joining = asyncio.gather(garden.create(call(), from_image("good", "true")))
    await until_waiting(garden, 2)
    assert bad.hold is not None
    bad.hold.set()
    [error] = await failing
    assert isinstance(error, RegistryUnreachable)
    await joining
    assert good.fetched == [0]


def _zeros(size: int) -> bytes:
    return tar(member("zeros", bytes(size)))


BROKEN: dict[str, tuple[bytes, str, str]] = {
    "cut off": (gzip.compress(tar(member("a", b"x" * 9000)))[:60], "archive.corrupt", "too early"),
    "garbage": (b"\x1f\x8b" + b"garbage" * 100, "archive.corrupt", "damaged"),
    "dot dot": (tar(member("../escape", b"x")), "archive.unsafe", "../escape"),
    "dev is a link": (tar(link("dev", "/etc")), "archive.unsafe", "real directory"),
    "xz": (lzma.compress(bytes(100)), "archive.unsupported", "compression xz"),
    "zstd's window": (zstd.with_window(31), "archive.too_large", "asks for too much memory"),
    "zstd's ratio": (zstd.of_zeros(1 << 30), "archive.too_large", "250 times as large"),
    "owner": (tar(member("a", uid=70_000)), "archive.unsafe", "65535"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_layer_that_is_not_taken(garden: Garden, offer: Offer, case: str) -> None:
    blob, code, words = BROKEN[case]
    offer(MemorySource([base(), blob], raw=True))
    document = problem(await fails(garden), call())
    assert (document.code, document.chain[0].hop) == (code, "garden")
    assert words in document.detail
    offer(MemorySource([base()]))
    await start(garden, from_image("a", "true"))


async def test_bombs_and_lies(new_garden: Callable[..., Any], offer: Offer) -> None:
    garden = await new_garden(layer_bytes_max=4 << 20, layer_entries_max=50)
    offer(MemorySource([_zeros(5 << 20)]))
    assert (await fails(garden)).root.message.endswith("more than 4194304 bytes unpacked")
    announced = offer(MemorySource([_zeros(5 << 20)], announced_bytes=1 << 40))
    assert "1099511627776 bytes" in (await fails(garden)).root.message
    assert announced.fetched == []
    offer(MemorySource([tar(*(member(f"{number}") for number in range(60)))]))
    assert (await fails(garden)).root.message.endswith("more than 50 entries")
    offer(MemorySource([tar(member("a"))], diff_ids={0: "sha256:" + "0" * 64}))
    error = await fails(garden)
    assert error.root.code == "archive.corrupt"
    assert error.root.evidence is not None
    assert error.root.evidence["announced"] == "sha256:" + "0" * 64


@asynccontextmanager
async def small_disk(config: GardenConfig, size: int) -> AsyncIterator[None]:
    """The store of a garden that was not started yet, on a disk of its own of so many bytes.

    It is ext4: that shifts ids, which tmpfs does since Linux 6.3 only.
    """
    store, disk = Path(config.state_dir, "images"), Path(config.state_dir, "disk")
    store.mkdir()
    disk.touch()
    os.truncate(disk, size + DISK_OVERHEAD)
    inodes = ("-N", str(DISK_INODES), "-I", "256")
    await done("mkfs.ext4", "-q", "-F", "-O", "^has_journal,^resize_inode", "-m", "0", "-b", "4096", *inodes, disk)
    await done("mount", "-o", "loop", disk, store)
    (store / "lost+found").rmdir()
    try:
        yield
    finally:
        await done("umount", store)


async def done(*argv: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


async def test_no_space(new_garden: Callable[..., Any], new_config: Callable[..., Any], offer: Offer) -> None:
    config = new_config()
    async with small_disk(config, 1 << 20):
        garden = await new_garden(config)
        offer(MemorySource([_zeros(3 << 20)]))
        error = await fails(garden)
        assert error.root.code == "garden.no_space"
        assert error.root.evidence is not None
        assert {"entry", "free_bytes", "free_inodes"} <= set(error.root.evidence)


async def test_a_disk_smaller_than_the_limit(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], offer: Offer
) -> None:
    """What nobody uses makes room for what somebody waits for; what a container has stays, and then it does not fit."""
    config = new_config()
    sizes = {name: 3 << 20 for name in ("one", "two", "three")}
    layers = {name: tar(member(name, bytes(size))) for name, size in sizes.items()}
    async with small_disk(config, 9 << 20):  # A shell has 2 MiB.
        garden: Garden = await new_garden(config)
        offer(MemorySource([base(), layers["one"]]))
        assert await output(garden, from_image("a", "ls /one")) == ["/one"]
        (images(garden) / "blobs/left.part").write_bytes(bytes(1 << 20))
        offer(MemorySource([base(), layers["two"]]))
        await start(garden, from_image("b", "sleep 60"))
        assert len(garden._store.layers) == 3
        offer(MemorySource([base(), layers["three"]]))
        await start(garden, from_image("c", "sleep 60"))
        assert len(garden._store.layers) == 3
        line = (images(garden) / "removals.jsonl").read_text().splitlines()[-1]
        assert "the disk is full" in json.loads(line)["reason"]
        assert not (images(garden) / "blobs/left.part").exists()
        offer(MemorySource([base(), layers["one"]]))
        with pytest.raises(NoSpace):
            await garden.create(call(), from_image("d", "true"))
        assert half_made(garden) == []
        for handle in ("b", "c"):
            await garden.destroy(call(), handle)
        await garden.close()


async def test_a_slow_image_holds_up_no_other(garden: Garden, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor itself: the same layer may be in it twice."""
    slow = MemorySource([base(), *(tar(member(f"slow{number}")) for number in range(4))], hold=asyncio.Event())
    twice = tar(member("quick"))
    quick = MemorySource([twice, base(), twice])
    sources = {"slow": slow, "quick": quick}
    monkeypatch.setattr(provide, "source_of", lambda spec, config: sources[spec.handle])
    creating = asyncio.gather(garden.create(call(), from_image("slow", "true")))
    await until(lambda: len(slow.fetched) == FETCHED_AT_ONCE)
    await start(garden, from_image("quick", "true"))
    assert (len(slow.fetched), slow.ended, len(quick.fetched)) == (FETCHED_AT_ONCE, [], 3)
    assert slow.hold is not None
    slow.hold.set()
    await creating


async def test_a_store_that_is_closed_begins_nothing(garden: Garden, offer: Offer) -> None:
    """Two wait for one layer when the cell stops: both are told, and neither begins anew."""
    source = offer(MemorySource([base()], hold=asyncio.Event()))
    both = [asyncio.gather(garden.create(call(), from_image(handle, "true"))) for handle in ("a", "b")]
    await until_waiting(garden, 2)
    await until(lambda: source.fetched == [0])
    await garden._store.close()
    for creating in both:
        with pytest.raises(DiegoError) as failed:
            await creating
        assert failed.value.root.code == "shutting_down"
    with pytest.raises(DiegoError) as late:
        await garden.create(call(), from_image("c", "true"))
    assert late.value.root.code == "shutting_down"
    assert (source.fetched, source.ended, half_made(garden), garden.containers()) == ([0], [0], [], [])


async def test_room_is_made_of_what_nobody_uses(new_garden: Callable[..., Any], offer: Offer) -> None:
    """Also when another garden has adopted the containers meanwhile."""
    garden = await new_garden(image_store_bytes_max=2 << 20)
    offer(MemorySource([base(), tar(member("one", bytes(1 << 20)))]))
    await start(garden, from_image("runs", "cat /one | wc -c; exec sleep 600"))
    offer(MemorySource([base(), tar(member("two", bytes(1 << 20)))]))
    await start(garden, from_image("ends", "true"))
    await garden.destroy(call(), "ends")
    assert len(garden._store.layers) == 3
    assert garden.held_images()[0] == "docker:///test:latest"
    await garden.close()
    again = await new_garden(garden.config)
    garden._boxes.clear()
    assert again.held_images() == ("docker:///test:latest",), "what runs says what it was made of"
    assert {layer.parent != "" for layer in again._store.layers} == {True, False}
    assert len(again._store.layers) == 2
    lines = (images(again) / "removals.jsonl").read_text().splitlines()
    assert ["not in use" in json.loads(line)["reason"] for line in lines] == [True]
    seen = await again.exec(call(), "runs", ProcessSpec("/bin/cat", ("/one",)), SOON_S)
    assert seen.status == 0
    await again.destroy(call(), "runs")
    assert len(await again._store.collect()) == 1
    assert again.held_images() == ()
    assert {layer.parent for layer in again._store.layers} == {""}


async def test_damage_is_found_at_start(new_garden: Callable[..., Any], offer: Offer) -> None:
    """Half-made, half-removed, without a record, and torn by the machine's end; what is whole stays."""
    garden = await new_garden()
    source = offer(MemorySource([base(), tar(member("two", b"content")), tar(member("three"))]))
    await start(garden, from_image("a", "true"))
    await garden.destroy(call(), "a")
    layers = images(garden) / "layers"
    two = next(layer for layer in garden._store.layers if (layers / layer.chain_id / "fs/two").exists())
    three = next(layer for layer in garden._store.layers if layer.parent == two.chain_id)
    await garden.close()
    record = json.loads((layers / two.chain_id / "layer.json").read_text())
    (layers / two.chain_id / "layer.json").write_bytes(msgspec.json.encode({**record, "boot_id": "another"}))
    (layers / two.chain_id / "fs/two").write_bytes(b"")
    (layers / three.chain_id / "layer.json").write_text("{")
    (layers / ("f" * 64 + ".incomplete") / "fs").mkdir(parents=True)
    (layers / ("e" * 64 + ".removed")).mkdir()
    (images(garden) / "blobs/left.part").write_text("x")
    again = await new_garden(garden.config)
    assert [layer.parent for layer in again._store.layers] == [""]
    assert half_made(again) == []
    source.fetched.clear()
    await start(again, from_image("a", "test $(cat /two) = content"))
    assert (await again.wait("a")).status == 0
    assert sorted(source.fetched) == [1, 2]


async def test_nothing_of_the_unpacker_goes_on(garden: Garden, offer: Offer) -> None:
    """A pull that is given up while it unpacks leaves no process and no directory."""
    big = tar(*(member(f"f{number}", bytes(4096)) for number in range(20_000)))
    offer(MemorySource([base(), big], raw=True))
    creating = asyncio.gather(garden.create(call(), from_image("a", "true")))
    layers = images(garden) / "layers"
    await until(lambda: any(layers.glob("*.incomplete/fs/f1*")))
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    assert half_made(garden) == []
    assert garden._store._ending == {}


async def test_an_image_without_a_command(garden: Garden, offer: Offer) -> None:
    offer(MemorySource([base()]))
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), ContainerSpec(handle="a", rootfs=IMAGE, path=""))
    assert failed.value.root.code == "image.no_command"
    assert garden.containers() == []

