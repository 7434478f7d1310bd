"""What is known of each OCI runtime: name, version, which versions are safe, how it lets a process begin. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from attrs import frozen

Release = Literal["read", "write", "call"]
"""How a created process is told to begin: read the fifo it writes to, write to the fifo it reads, ask the runtime."""

RELEASES: dict[str, Release] = {"runc": "read", "crun": "write"}

FLOORS = {"runc": ((1, 2, 8), (1, 3, 3), (1, 4, 0)), "crun": ((1, 28, 0),)}
"""The first safe release of each line, ascending; what is above the last line is safe, what is below the first is not.

runc: CVE-2025-31133, -52565 and -52881 (masked paths and the console swapped for links while they are mounted).
crun: CVE-2026-30892 (exec as another user) and CVE-2026-47766 (/dev as a link). A distribution may have patched an
older one; its version does not say so.
"""

_SAID = re.compile(r"(?P<name>[a-z][a-z0-9_-]*)(?: version)?:? (?:release-)?v?(?P<text>(?P<number>\d+(?:\.\d+)*)\S*)")

_PRERELEASE = re.compile(r"[-~.]?(rc|alpha|beta)")


@frozen
class RuntimeVersion:
    """Which program the runtime is, by its own words."""

    name: str
    """`runc`, `crun`, ...: also the name of its hop in the chain."""
    number: tuple[int, ...] = ()
    """Empty when the program does not say."""
    text: str = "unknown"
    prerelease: bool = False

    @property
    def release(self) -> Release:
        return RELEASES.get(self.name, "call")

    def shortcoming(self) -> str | None:
        """Why this version is not to be trusted with a container's walls alone; None when it is."""
        floors = FLOORS.get(self.name)
        if floors is None:
            return f"{self.name} {self.text}: no version of this runtime is known to be safe"
        if self.number and not self._below(floors):
            return None
        wanted = ", ".join(".".join(map(str, floor)) for floor in floors)
        return f"{self.name} {self.text} is older than the first safe release of its line ({wanted})"

    def _below(self, floors: tuple[tuple[int, ...], ...]) -> bool:
        number = (*self.number, 0, 0)[:3]
        for floor in floors:
            if number[:2] == floor[:2]:
                return number < floor or (number == floor and self.prerelease)
        return number < floors[-1]


def named_by(path: str) -> RuntimeVersion:
    """What is known of a runtime before it was asked: the name of its file."""
    return RuntimeVersion(Path(path).name)


def parse(said: str, path: str) -> RuntimeVersion:
    """The answer to `--version`. What says nothing of the kind is called by its file's name, version unknown."""
    found = _SAID.match(said)
    if found is None:
        return named_by(path)
    number = tuple(int(part) for part in found["number"].split("."))
    rest = found["text"][len(found["number"]) :]
    return RuntimeVersion(found["name"], number, found["text"], bool(_PRERELEASE.match(rest)))
