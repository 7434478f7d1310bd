"""Root file systems on the disk of a cell: one directory each below the image root, whole or not there.

A tree is made as NAME.incomplete and renamed. Archives are unpacked by the program that unpacks images on a cell.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from diego_py.errors import ConflictError, GardenFailed, NotFound, RootfsInvalid, UnpackFailed, registry

IMAGE_ROOT = Path("/var/lib/diego/rootfs")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
INCOMPLETE = ".incomplete"
MOUNT_POINTS = ("dev", "proc", "sys")


def names(image_root: Path) -> list[str]:
    """The trees that are whole."""
    if not image_root.is_dir():
        return []
    return sorted(e.name for e in os.scandir(image_root) if e.is_dir() and not e.name.endswith(INCOMPLETE))


@contextmanager
def making(image_root: Path, name: str, replace: bool = False) -> Iterator[Path]:
    """A directory to fill, which becomes `name` when the body ends well and vanishes when it does not.

    Raises RootfsInvalid for a bad name, ConflictError when it exists, GardenFailed when the disk refuses.
    """
    if not NAME.fullmatch(name) or name.endswith(INCOMPLETE):
        raise RootfsInvalid(f"name a rootfs {name!r}: letters, digits, '_', '.', '-', at most 100")
    target, unfinished = image_root / name, image_root / (name + INCOMPLETE)
    if target.exists() and not replace:
        raise ConflictError(f"rootfs {name} exists already; --replace puts another in its place")
    try:
        image_root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        unfinished.chmod(0o755)
        yield unfinished
        for mount_point in MOUNT_POINTS:
            (unfinished / mount_point).mkdir(exist_ok=True)
        _put_in_place(unfinished, target)
    except OSError as refused:
        raise GardenFailed(f"make rootfs {name} at {refused.filename or image_root}: {refused.strerror}") from refused
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove(image_root: Path, name: str) -> None:
    """Remove a tree. Containers that run from it lose their files. Raises NotFound, GardenFailed."""
    if name not in names(image_root):
        raise NotFound(f"remove rootfs {name!r}: {image_root} has none of this name; diego rootfs list")
    try:
        unfinished = image_root / (name + INCOMPLETE)
        shutil.rmtree(unfinished, ignore_errors=True)
        (image_root / name).rename(unfinished)
        shutil.rmtree(unfinished)
    except OSError as refused:
        raise GardenFailed(f"remove rootfs {name}: {refused.strerror}") from refused


def import_directory(source: Path, tree: Path) -> None:
    """Copy a directory, with owners and hard links, past the same checks that an archive has to pass.

    Raises what `import_archive` does.
    """
    argv = ["tar", "--create", "--one-file-system", "--numeric-owner", "--directory", str(source), "--file", "-", "."]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packing:
        if packing.stdout is None:
            raise AssertionError("a pipe was asked for")
        try:
            _unpack(packing.stdout, tree)
        finally:
            packing.stdout.close()


def import_archive(source: Path, tree: Path) -> None:
    """Unpack a tar, compressed or not, by the program that a cell unpacks images with; that needs root.

    Raises ArchiveCorrupt, ArchiveUnsafe, ArchiveTooLarge, ArchiveUnsupported, NoSpace, UnpackFailed.
    """
    with source.open("rb") as archive:
        _unpack(archive, tree)


def _unpack(archive: IO[bytes], tree: Path) -> None:
    argv = [sys.executable, "-m", "cells.garden.images.unpack_command", "rootfs", str(tree)]
    finished = subprocess.run(argv, stdin=archive, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        return
    try:
        told = json.loads(finished.stdout)
        failure = registry()[told["code"]]
    except (ValueError, KeyError, TypeError) as garbled:
        words = finished.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UnpackFailed(f"unpack an archive: {words[0]}") from garbled
    raise failure(told["detail"])


def _put_in_place(unfinished: Path, target: Path) -> None:
    if not target.exists():
        unfinished.rename(target)
        return
    before = target.with_name(f"{target.name}.before{INCOMPLETE}")
    shutil.rmtree(before, ignore_errors=True)
    target.rename(before)
    unfinished.rename(target)
    shutil.rmtree(before)


__all__ = ["IMAGE_ROOT", "import_archive", "import_directory", "making", "names", "remove"]
