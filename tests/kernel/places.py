"""File systems to limit disk on, each made in a file and mounted for one test; a kernel that has it not is a skip."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cells.garden.quota import kernel
from tests.kernel.slot import STATE_PREFIX

PLACES = ("xfs", "ext4", "btrfs", "store", "loop")
"""Project quota twice, a btrfs of the operator's, one of our own, and an image for each container."""
HAVE_PROJECTS = ("xfs", "ext4")
COUNT_INODES = ("xfs", "ext4", "loop")
SIZE = 512 << 20
STORE_MB = 256
_impossible: dict[str, str] = {}
"""Why, by kind: asked once."""


@contextmanager
def place(name: str) -> Iterator[dict[str, Any]]:
    """What to set in a garden's configuration, for as long as the place is there."""
    if name == "store":
        yield {"volumes_store_mb": STORE_MB}
    elif name == "loop":
        yield {"disk_driver": "loop"}
    else:
        with mounted(name) as directory:
            yield {"volumes_dir": str(directory), "disk_driver": "btrfs" if name == "btrfs" else "project"}


@contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """A file system of this kind that enforces quotas, in a file; the plain one does not."""
    make, options = {
        "xfs": (["mkfs.xfs", "-q"], "prjquota"),
        "ext4": (["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"], "prjquota"),
        "btrfs": (["mkfs.btrfs", "-q"], "noatime"),
        "plain": (["mkfs.ext4", "-q", "-F"], "noatime"),
    }[kind]
    if kind in _impossible:
        pytest.skip(_impossible[kind])
    if shutil.which(make[0]) is None:
        pytest.skip(f"no {make[0]} on this host")
    home = Path(tempfile.mkdtemp(prefix=STATE_PREFIX))
    home.chmod(0o711)
    image, at = home / "image", home / "place"
    at.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        mount = ["mount", "-t", "ext4" if kind == "plain" else kind, "-o", f"loop,{options}", str(image), str(at)]
        refused = subprocess.run(mount, capture_output=True, text=True, check=False)
        if refused.returncode != 0:
            _impossible[kind] = f"this kernel mounts no {kind} with quotas: {refused.stderr.splitlines()[0]}"
            pytest.skip(_impossible[kind])
        try:
            if kind == "btrfs":
                kernel.enable_quota(str(at))
            elif kind != "plain" and not kernel.project_quota_enforced(str(at)):
                pytest.skip(f"this kernel mounts {kind} with prjquota and enforces nothing")
            at.chmod(0o711)
            yield at
        finally:
            subprocess.run(["umount", str(at)], check=True)
    finally:
        shutil.rmtree(home)
