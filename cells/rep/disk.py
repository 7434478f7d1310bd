"""Files that survive `kill -9`: whole or not there, never half."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen


class Disk(Protocol):
    """The files of one directory. Every method may raise OSError; none waits for anything but the disk."""

    def names(self) -> Sequence[str]:
        """The files there are, in the order in which they were written."""

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Make `name` hold `content`; it is on the disk when this returns."""

    def rename(self, name: str, other: str) -> None:
        """Keep a file under another name."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


@frozen
class Directory:
    """A directory of the host, made when first used."""

    path: Path

    def names(self) -> Sequence[str]:
        self.path.mkdir(parents=True, exist_ok=True)
        files = [path for path in self.path.iterdir() if path.is_file() and not path.name.startswith(".")]
        return [path.name for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.new"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / name)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def rename(self, name: str, other: str) -> None:
        (self.path / name).rename(self.path / other)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
