"""The volumes of one cell: a directory for each container, in which is all that the container can write to disk."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from attrs import define, field

from cells.garden.quota import btrfs, loop, none, probe, project
from cells.garden.quota.driver import VOLUME_MODE, Driver, Request
from cells.garden.quota.probe import Choice, Verdict
from cells.garden.quota.store import Store
from cells.garden.spec import DiskUsage, Limits
from diego_py.errors import Outcome, QuotaUnavailable, VolumeFailed


@define
class Volumes:
    """Making it touches nothing; `prepare` does. Everything below `directory/cell_id` is ours, nothing else is."""

    directory: Path
    cell_id: str
    store: Store | None
    wanted: str
    inodes_max: int
    _choice: Choice = field(factory=lambda: Choice(none.Unlimited(), ()), init=False)

    @property
    def root(self) -> Path:
        return self.directory / self.cell_id

    def prepare(self) -> None:
        """Make the place and choose the driver. Raises OSError, QuotaUnavailable."""
        _make_directory(self.directory)
        verdicts = self._open_store()
        choice = probe.choose(self.directory, self.wanted, self.inodes_max)
        if isinstance(choice, Verdict):
            raise QuotaUnavailable(
                f"limit disk by {choice.driver}, as configured: {choice.why}", outcome=Outcome.NOT_STARTED
            )
        self._choice = Choice(choice.driver, (*verdicts, *choice.verdicts))
        _make_directory(self.root)
        if self.store is not None and isinstance(choice.driver, btrfs.BtrfsQuota):
            choice.driver.sweep(self.directory, [path for path in self.root.iterdir() if path.is_dir()])

    def _open_store(self) -> tuple[Verdict, ...]:
        """A store that cannot be had is told, and the next best thing is taken."""
        if self.store is None:
            return ()
        try:
            self.store.open()
        except OSError as refused:
            told = f"{refused.strerror}: {refused.filename} ({errno.errorcode.get(refused.errno or 0, '?')})"
            return (Verdict("store", False, told),)
        return (Verdict("store", True, f"{self.store.image} is mounted at {self.store.at}"),)

    def close(self) -> None:
        """Let go of what no container needs. Raises OSError."""
        if self.store is not None and not self.handles():
            self.store.close()

    def about(self) -> dict[str, object]:
        """Which driver limits disk here, what it can limit, and why it is this one."""
        return self._choice.about()

    def limits_bytes(self) -> bool:
        """Whether a limit on the bytes of a volume can be held here."""
        return "bytes" in self._choice.driver.counts

    def check(self, limits: Limits) -> None:
        """Raises QuotaUnavailable when a limit cannot be held here."""
        asked = {"bytes": limits.disk_bytes, "inodes": limits.disk_inodes}
        beyond = [name for name, limit in asked.items() if limit is not None and name not in self._choice.driver.counts]
        if beyond:
            raise QuotaUnavailable(
                f"limit the {' and '.join(beyond)} of a container's disk with the driver {self._choice.driver.name!r}",
                outcome=Outcome.NOT_STARTED,
                evidence=self.about(),
            )

    def path(self, handle: str) -> Path:
        """Where the volume of a new container will be."""
        return self.root / handle

    def make(self, path: Path, limits: Limits, number: int, privileged: bool = False) -> None:
        """Make a volume; `number` is nobody else's on this host. Raises VolumeFailed; then call `remove`.

        Quotas do not hold whoever has all capabilities: then a limit is the end of a file system of its own.
        """
        limited = limits.disk_bytes is not None or limits.disk_inodes is not None
        try:
            driver = loop.LoopImages() if privileged and limited else self._choice.driver
            driver.make(path, Request(limits.disk_bytes, limits.disk_inodes, number))
        except OSError as refused:
            raise _failed("make", path, refused) from refused

    def usage(self, path: Path) -> DiskUsage | None:
        """What is used of a volume's limits; None when nobody counts, or the host does not say."""
        with contextlib.suppress(OSError):  # Asked at the end of a container too, which must be told in any case.
            return self._driver_of(path).usage(path)
        return None

    def thaw(self, path: Path) -> None:
        """Let writers go on if a volume is a file system of its own that somebody froze. Raises VolumeFailed."""
        try:
            loop.thaw(path)
        except OSError as refused:
            raise _failed("thaw", path, refused) from refused

    def remove(self, path: Path) -> None:
        """Take a volume away, whole or half-made, whichever driver made it. Idempotent. Raises VolumeFailed."""
        try:
            self._driver_of(path).remove(path)
        except FileNotFoundError:
            return
        except OSError as refused:
            raise _failed("remove", path, refused) from refused

    def handles(self) -> set[str]:
        """Every container that has a volume here, or the beginning of one."""
        try:
            entries = list(self.root.iterdir())
        except FileNotFoundError:
            return set()
        return {entry.name if entry.is_dir() else loop.volume_of(entry).name for entry in entries}

    def _driver_of(self, path: Path) -> Driver:
        """The driver that made a volume: not the present one when the configuration or the mount has changed."""
        makers = (loop.LoopImages(), project.ProjectQuota(self.inodes_max), none.Unlimited())
        if (driver := self._choice.driver).has(path):
            return driver
        return next(driver for driver in (btrfs.BtrfsQuota(), *makers) if driver.has(path))


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(VOLUME_MODE)


def _failed(what: str, path: Path, refused: OSError) -> VolumeFailed:
    return VolumeFailed(
        f"{what} the volume {path.name}",
        evidence={"errno": errno.errorcode.get(refused.errno or 0, "?"), "at": str(refused.filename)},
    )
