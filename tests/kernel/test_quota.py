"""Disk limits on a real kernel, by every driver that the host can do: held, counted, named when met, and taken away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.executor import failures
from cells.garden.garden import Garden
from cells.garden.quota import kernel, loop
from cells.garden.spec import Exit, Limits
from diego_py.errors import DiegoError, DiskExceeded, ProcessExited, QuotaUnavailable
from tests.kernel.containers import call, shell, start, until_printed
from tests.kernel.places import COUNT_INODES, HAVE_PROJECTS, PLACES, mounted, place

pytestmark = pytest.mark.kernel

MEBIBYTE = 1 << 20
LIMIT = 8 * MEBIBYTE
LIMITED = Limits(disk_bytes=LIMIT)
FILL = "dd if=/dev/zero of=/big bs=64k count=1000 2>&1 | tail -3"


@pytest.fixture(params=PLACES)
def where(request: pytest.FixtureRequest, host_sweep: None) -> str:
    """The name of a place; its settings are in `settings`."""
    name: str = request.param
    return name


@pytest.fixture
def settings(where: str) -> Iterator[dict[str, Any]]:
    with place(where) as made:
        yield made


@pytest.fixture
async def limited(settings: dict[str, Any], new_garden: Callable[..., Any]) -> Garden:
    garden: Garden = await new_garden(**settings)
    return garden


async def ended(garden: Garden, handle: str, script: str, limits: Limits = LIMITED) -> Exit:
    await start(garden, shell(handle, script, limits=limits))
    return await garden.wait(handle)


def volumes(garden: Garden) -> list[str]:
    return sorted(os.listdir(garden._host.volumes.root))


async def test_a_full_disk_is_named_and_is_nobody_elses(limited: Garden) -> None:
    await start(limited, shell("neighbour", "echo up; exec sleep 600", limits=LIMITED))
    await until_printed(limited, "neighbour", "up")
    filled = await ended(limited, "a", f"{FILL}; exec cat /big /bin/busybox > /more")
    assert filled.status not in (0, None)
    assert filled.disk is not None
    assert filled.disk.full
    assert filled.disk.limit_bytes is not None
    assert LIMIT <= filled.disk.limit_bytes <= LIMIT + LIMIT // 8 + MEBIBYTE
    assert filled.disk.used_bytes > 0.9 * LIMIT
    error = failures.exited(filled)
    assert isinstance(error, DiskExceeded)
    assert error.evidence["disk"]["limit_bytes"] == filled.disk.limit_bytes
    assert any("exceeded" in line or "No space" in line for line in filled.log_tail)
    # The neighbour has all of its own, and so has the next one of the same name.
    fine = await ended(limited, "b", "dd if=/dev/zero of=/big bs=64k count=100 && rm /big && exit 4")
    assert (fine.status, fine.disk and fine.disk.full) == (4, False)
    assert isinstance(failures.exited(fine), ProcessExited)
    await limited.destroy(call(), "a")
    assert (await ended(limited, "a", "dd if=/dev/zero of=/big bs=64k count=100")).status == 0
    for handle in ("a", "b", "neighbour"):
        await limited.destroy(call(), handle)
    assert volumes(limited) == []


async def test_every_file_that_it_can_write_counts(limited: Garden) -> None:
    """/etc/hosts is a file of the host's, and a bind mount."""
    script = "cat /dev/zero > /etc/hosts; cat /dev/zero > /etc/resolv.conf; wc -c < /etc/hosts; exit 5"
    filled = await ended(limited, "a", script)
    assert filled.disk is not None
    assert filled.disk.full
    assert int(filled.log_tail[-1]) < LIMIT + MEBIBYTE


async def test_the_image_does_not_count(limited: Garden) -> None:
    assert Path("/bin/busybox").stat().st_size > 512 * 1024
    limits = Limits(disk_bytes=1 * MEBIBYTE)
    seen = await ended(limited, "a", "du -s /bin/busybox; cat /bin/busybox | head -c 300000 > /copy", limits)
    assert seen.status == 0
    assert seen.disk is not None
    assert 300_000 <= seen.disk.used_bytes < 700_000


async def test_usage_while_it_runs(limited: Garden) -> None:
    script = "dd if=/dev/zero of=/f bs=1M count=5; sync; echo done; exec sleep 600"
    await start(limited, shell("a", script, limits=LIMITED))
    await until_printed(limited, "a", "done")
    used = limited.usage("a")
    assert used.disk is not None
    assert 5 * MEBIBYTE <= used.disk.used_bytes <= 6 * MEBIBYTE
    assert used.memory_bytes is not None
    assert used.memory_bytes > 0
    assert used.cpu_s > 0
    assert (used.pids, used.pids_limit) == (1, 1024)


async def test_inodes(limited: Garden, where: str) -> None:
    limits = Limits(disk_bytes=LIMIT, disk_inodes=300)
    script = "mkdir /d; for i in $(seq 1000); do : > /d/$i || exit 3; done"
    if where not in COUNT_INODES:
        with pytest.raises(DiegoError) as refused:
            await limited.create(call(), shell("a", script, limits=limits))
        assert isinstance(refused.value.root, QuotaUnavailable)
        assert limited.containers() == []
        return
    filled = await ended(limited, "a", script, limits)
    assert filled.status != 0
    assert filled.disk is not None
    assert filled.disk.full
    assert isinstance(failures.exited(filled), DiskExceeded)


async def test_a_container_without_a_limit(limited: Garden) -> None:
    free = await ended(limited, "a", "dd if=/dev/zero of=/big bs=1M count=20", Limits())
    assert free.status == 0
    assert free.disk is None or free.disk.limit_bytes is None


@pytest.mark.parametrize("where", HAVE_PROJECTS, indirect=True)
async def test_nothing_gets_out_of_its_project(limited: Garden) -> None:
    script = f"mkdir /out; chattr -p 0 /out 2>&1; cd /out; {FILL}; exit 3"
    filled = await ended(limited, "a", script)
    assert filled.disk is not None
    assert filled.disk.full


async def test_volumes_without_a_record_go_at_start(
    settings: dict[str, Any], new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    """As after kill -9 between the volume and whatever came next: the record is there, or no longer."""
    config = new_config(**settings)
    first: Garden = await new_garden(config)
    await start(first, shell("lives", "echo up; exec sleep 600", limits=LIMITED))
    await first.close()
    host = first._host
    host.volumes.make(host.volumes.path("lost"), LIMITED, 7)
    Path(host.volumes.path("lost"), "file").write_text("x")
    host.volumes.path("half").mkdir()
    loop.image_of(host.volumes.path("image-only")).write_text("half an image")
    second = await new_garden(config)
    assert [container.handle for container in second.containers()] == ["lives"]
    assert {name.removeprefix(".").removesuffix(".ext4") for name in volumes(second)} == {"lives"}
    assert second.usage("lives").disk.limit_bytes >= LIMIT
    await second.destroy(call(), "lives")
    first._boxes.clear()
    assert volumes(second) == []


async def test_foreign_subvolumes_are_left_alone(new_garden: Callable[..., Any], host_sweep: None) -> None:
    with mounted("btrfs") as directory:
        kernel.create_subvolume(directory / "theirs")
        garden = await new_garden(volumes_dir=str(directory))
        assert garden.disk_limits()["driver"] == "btrfs"
        await ended(garden, "a", "echo hello > /file")
        await garden.destroy(call(), "a")
        assert sorted(os.listdir(directory)) == ["cell-0", "theirs"]


async def test_the_store_is_kept_while_it_is_needed(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config(volumes_store_mb=256)
    first: Garden = await new_garden(config)
    at, image = Path(config.state_dir, "volumes"), Path(config.state_dir, "volumes.btrfs")
    await start(first, shell("a", "echo up; exec sleep 600", limits=LIMITED))
    await first.close()
    assert at.is_mount()
    second: Garden = await new_garden(config)
    await second.destroy(call(), "a")
    made = image.stat().st_ino
    await second.close()
    assert not at.is_mount()
    await new_garden(config)
    assert (image.stat().st_ino, at.is_mount()) == (made, True)
    first._boxes.clear()


async def test_a_store_that_cannot_be_had_is_told(new_garden: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "/nowhere:" + os.environ["PATH"])
    monkeypatch.setattr("cells.garden.quota.store.MKFS", "mkfs.nothing")
    garden = await new_garden(volumes_store_mb=256)
    told = garden.disk_limits()
    assert told["driver"] == "loop"
    assert told["why"][0] == "store: no such program: mkfs.nothing (ENOENT)"
    assert "without prjquota" in told["why"][1] or "is on" in told["why"][1]


async def test_no_way_to_limit_disk(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden(disk_driver="none")
    assert not garden.limits_disk()
    with pytest.raises(DiegoError) as refused:
        await garden.create(call(), shell("a", "true", limits=LIMITED))
    root = refused.value.root
    assert isinstance(root, QuotaUnavailable)
    assert root.evidence["driver"] == "none"
    assert (await ended(garden, "a", "exit 3", Limits())).status == 3


async def test_a_driver_that_was_insisted_on(new_garden: Callable[..., Any]) -> None:
    with mounted("btrfs") as directory, pytest.raises(DiegoError) as refused:
        await new_garden(volumes_dir=str(directory), disk_driver="project")
    assert isinstance(refused.value.root, QuotaUnavailable)
    assert "btrfs" in refused.value.message
