"""A directory that is only remembered."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field


@define
class MemoryDisk:
    """What `cells.rep.disk.Disk` promises, for as long as this object lives."""

    files: dict[str, bytes] = field(factory=dict)

    def names(self) -> Sequence[str]:
        return list(self.files)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.files.pop(name, None)
        self.files[name] = content

    def rename(self, name: str, other: str) -> None:
        self.files[other] = self.files.pop(name)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)
