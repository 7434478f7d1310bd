"""What the executor needs of a container backend. Garden is one, the fake garden of tests and simulation another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Protocol

from cells.garden.spec import (
    Activity,
    Container,
    ContainerSpec,
    EgressRule,
    ExecResult,
    Exit,
    LogLine,
    ProcessSpec,
    Usage,
)
from diego_py.call import Call


class LaunchedProcess(Protocol):
    """A process beside the container's own. Close it."""

    async def wait(self) -> Exit:
        """How it ended, once its output is in the log. Somebody has to wait as long as it runs. Any number of times."""

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended."""

    def leave(self) -> None:
        """Let go of one that has ended, instead of closing it: what it left behind goes on."""

    async def close(self) -> None:
        """Kill it with all it started. Idempotent."""


class ContainerBackend(Protocol):
    """Containers by handle. The methods that take a call enter their own hop of the chain."""

    async def start(self) -> Sequence[Container]:
        """Take up what an earlier process left and return it; clean up what cannot be used."""

    async def create(self, call: Call, spec: ContainerSpec) -> Container:
        """Make everything but the user process. Whole or not at all."""

    async def run(self, call: Call, handle: str) -> object:
        """Start the user process of a created container; returns when it was executed."""

    async def wait(self, handle: str) -> Exit:
        """Return when the user process has ended. Raises ContainerNotFound for an unknown handle."""

    def activity(self, handle: str) -> Activity:
        """What the container's processes do at this moment; `ended` for one that is not there."""

    def worked_s(self, handle: str) -> float:
        """Seconds of processor time that the container's processes have used; 0 for one that is not there."""

    def usage(self, handle: str) -> Usage:
        """What the container uses now. Cheap. Raises ContainerNotFound."""

    def disk_limits(self) -> Mapping[str, object]:
        """How containers are held to disk limits here: `driver`, `limits` (bytes, inodes), and `why` it is so."""

    async def exec(self, call: Call, handle: str, process: ProcessSpec, timeout_s: float) -> ExecResult:
        """Run one more process inside to its end or its timeout."""

    async def launch(self, call: Call, handle: str, process: ProcessSpec) -> LaunchedProcess:
        """Start one more process in a container that has not ended, begun or not; its output goes to the log."""

    def note(self, handle: str, source: str, text: str) -> None:
        """Write a line to the log of a container, marked with `source`. Raises ContainerNotFound."""

    async def stream_in(
        self, call: Call, handle: str, path: str, archive: AsyncIterable[bytes], user: str = "root"
    ) -> None:
        """Unpack a tar stream below `path`, as this user of the container; a relative path is one in its home."""

    def stream_out(self, call: Call, handle: str, path: str, user: str = "root") -> AsyncGenerator[bytes, None]:
        """The tar stream of what is at `path`, as this user may read it. Raises FileMissing and its like."""

    async def set_egress(self, call: Call, handle: str, rules: Sequence[EgressRule]) -> None:
        """Replace the egress rules of a container, at once and over restarts. Raises ContainerNotFound."""

    async def stop(self, call: Call, handle: str, grace_s: float) -> Exit:
        """Ask the user process to end, then kill it; returns how it ended. At once for one that ended already."""

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> object:
        """Remove everything but the log. Idempotent: an unknown handle is gone already.

        The user process is asked to end first, if it has a grace time; what then still runs is killed.
        """

    def containers(self) -> Sequence[Container]:
        """Every container there is."""

    def logs(self, handle: str, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """The last `tail` lines, then, when following, each new one until the container is gone.

        Works after `destroy`. Raises ContainerNotFound when there never was one.
        """

    def rootfs_names(self) -> Sequence[str]:
        """The names that `preloaded:` rootfs may have here."""

    def held_images(self) -> Sequence[str]:
        """Names (`image_reference.held_as`) of images that need not be fetched here, the one used last first."""

    def limits_disk(self) -> bool:
        """Whether containers with a disk limit are made here; known once it was started."""

    def makes_privileged(self) -> bool:
        """Whether privileged containers are made here; known once it was started."""

    def warnings(self) -> Sequence[str]:
        """What makes this host less safe than it should be, in words; known once it was started."""

    async def close(self) -> None:
        """Let go of everything; containers run on."""
