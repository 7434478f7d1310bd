"""The smallest useful root file system: this machine's static busybox with all of its applets, and two users."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from diego_py.cli import rootfs_tree
from diego_py.errors import RootfsInvalid

NAME = "busybox"
USER = ("vcap", 1000)
PT_INTERP = 3

DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "usr/bin", "usr/sbin", "var/tmp")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "vcap:x:1000:1000:vcap:/home/vcap:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nvcap:x:1000:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "localhost\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def add(image_root: Path) -> Path:
    """Make it one of those below `image_root`, where it must not be yet. Returns where it is.

    Raises RootfsInvalid when this machine has no static busybox, ConflictError when it exists, GardenFailed.
    """
    with rootfs_tree.making(image_root, NAME) as tree:
        build(tree)
    return image_root / NAME


def build(tree: Path) -> None:
    """Fill an empty directory. Raises RootfsInvalid when this machine has no static busybox."""
    program = find()
    for directory in DIRECTORIES:
        (tree / directory).mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copy(program, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for applet in _applets(program):
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "usr/bin/env").symlink_to("../../bin/busybox")
    for name, text in FILES.items():
        (tree / name).write_text(text)
    for name in ("tmp", "var/tmp"):
        (tree / name).mkdir(exist_ok=True)
        (tree / name).chmod(0o1777)
    home = tree / "home" / USER[0]
    home.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(home, USER[1], USER[1])


def find() -> Path:
    """The static busybox of this machine. Raises RootfsInvalid."""
    found = shutil.which("busybox") or shutil.which("busybox.static")
    if found is None:
        raise RootfsInvalid("find busybox on this machine: apt-get install busybox-static")
    if not is_static(Path(found)):
        raise RootfsInvalid(f"use {found}: it needs libraries that the tree would not have; install busybox-static")
    return Path(found)


def is_static(program: Path) -> bool:
    """Whether an ELF program asks for no dynamic linker."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset = struct.unpack_from("<Q", header, 32)[0]
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        entries = file.read(size * count)
    return all(struct.unpack_from("<I", entries, place)[0] != PT_INTERP for place in range(0, len(entries), size))


def _applets(program: Path) -> list[str]:
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=10)
    return [name for name in listed.stdout.split() if "/" not in name]
