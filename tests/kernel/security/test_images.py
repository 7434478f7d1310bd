"""An image is the attacker's: whatever leads out of it leads nowhere, and nothing of the host changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.garden.garden import Garden
from diego_py.errors import DiegoError, RootfsInvalid
from tests.kernel.containers import call, make_busybox, output, shell

pytestmark = pytest.mark.kernel

MOUNT_POINTS = ("dev", "proc", "sys")
OWN_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


@pytest.fixture
def hostile(image_root: Path, tmp_path: Path) -> Iterator[Path]:
    """An image to spoil; `tmp_path` is the host."""
    tmp_path.chmod(0o777)
    image = image_root / "hostile"
    make_busybox(image)
    yield image
    shutil.rmtree(image)


@pytest.mark.parametrize("entry", [*MOUNT_POINTS, *OWN_FILES, "etc", "dev/shm", "sys/fs/cgroup"])
async def test_image_leads_nowhere(garden: Garden, hostile: Path, tmp_path: Path, entry: str) -> None:
    """What the runtime mounts onto is a link to the host: refused, or followed inside of the image only."""
    path, outside = hostile / entry, tmp_path / "outside"
    if entry not in OWN_FILES:
        outside.mkdir(mode=0o777)
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    if entry in MOUNT_POINTS:
        with pytest.raises(DiegoError) as refused:
            await garden.create(call(), shell("a", "true", rootfs="preloaded:hostile"))
        assert refused.value.find(RootfsInvalid) is not None
    else:
        wanted = shell("a", "mkdir -p /etc; echo x >/etc/hosts; echo y >/etc/new; echo ran", rootfs="preloaded:hostile")
        try:
            assert await output(garden, wanted) == ["ran"]
        except DiegoError:
            await garden.destroy(call(), "a")
    assert list(tmp_path.rglob("*")) == ([] if entry in OWN_FILES else [outside])
