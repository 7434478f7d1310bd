"""Which cell this is beyond its name: a second one of the same name keeps its state elsewhere, and has another id."""

from __future__ import annotations

from collections.abc import Callable

from cells.rep.disk import Disk

NAME = "home"


def home_id(disk: Disk, new_guid: Callable[[], str]) -> str:
    """The id kept here, made when a cell first starts here. Raises OSError."""
    known = disk.read(NAME)
    if known is not None:
        return known.decode().strip()
    made = new_guid()
    disk.write(NAME, made.encode())
    return made
