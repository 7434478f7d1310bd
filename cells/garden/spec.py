"""The nouns of garden: what a container shall be, what it is, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, NewType

from attrs import Attribute, field, frozen

from diego_py.secret import Secret

Handle = NewType("Handle", str)
"""Names a container on its cell; also its directory, its runtime id and its log."""

Env = tuple[tuple[str, str], ...]
State = Literal["created", "running", "exited", "destroying"]
"""The last one: what was begun could not be finished, and can be asked for again."""
Activity = Literal["busy", "waiting", "ended"]
"""What the processes of a container do: at least one runs or is about to; all sleep; the user process is no more, or
none is beside that of an idle container."""

PIDS_DEFAULT = 1024
CELLS_MAX = 65_535
"""What the kernel can count of a terminal's columns or rows."""
DISK_LEFT_BYTES = 128 * 1024
DISK_LEFT_FRACTION = 100
"""File systems refuse before the last byte: a write takes whole blocks, and some for where they are written down."""


@frozen
class Limits:
    """What a container may use. None means: not limited by us."""

    memory_bytes: int | None = None
    """Memory and swap together are held to this, so a container never swaps."""
    cpu_weight: int | None = None
    """1..100, relative to the other containers; None is 100."""
    pids: int = PIDS_DEFAULT
    """Processes and threads together."""
    nofile: int | None = None
    """Open files a process; never above the cell's own hard limit."""
    disk_bytes: int | None = None
    """What the container has written and not removed; its image does not count."""
    disk_inodes: int | None = None
    """Files and directories that the container has made; not every cell can count them."""
    cpu_millis: int | None = None
    """Thousandths of a processor that it may use at most, however idle the host is."""
    log_bytes_per_second: int | None = None
    """Of its output, as it is handed out; 0: none of it is kept."""


@frozen
class DiskUsage:
    """What a container has on disk of what it may have. A limit of None is none; inodes of None are not counted."""

    used_bytes: int
    limit_bytes: int | None = None
    used_inodes: int | None = None
    limit_inodes: int | None = None

    @property
    def full(self) -> bool:
        """So near to a limit that writing fails."""
        inodes_left = None if self.limit_inodes is None else self.limit_inodes - (self.used_inodes or 0)
        if inodes_left is not None and inodes_left <= 0:
            return True
        if self.limit_bytes is None:
            return False
        return self.limit_bytes - self.used_bytes <= max(DISK_LEFT_BYTES, self.limit_bytes // DISK_LEFT_FRACTION)


@frozen
class Usage:
    """What a container uses now; figures that the kernel does not give are None."""

    memory_bytes: int | None
    """Without what the kernel would give up at once: pages of files that nobody has used for a while."""
    memory_limit_bytes: int | None
    cpu_s: float
    """Seconds of processor time since it was created."""
    pids: int | None
    pids_limit: int | None
    disk: DiskUsage | None


@frozen
class PortForward:
    """One TCP port of the container and the port of the host that leads to it."""

    container_port: int
    host_port: int


@frozen
class Network:
    """Where a container can be reached: its own IPv4 address, the host's, and its published ports."""

    address: str
    host_address: str
    ports: tuple[PortForward, ...] = ()
    address6: str | None = None
    """Its own IPv6 address, on cells that give one."""


EgressProtocol = Literal["tcp", "udp", "icmp", "icmpv6", "all"]


@frozen
class EgressRule:
    """Let a container open connections, or send messages, that would be refused otherwise."""

    protocol: EgressProtocol
    destinations: tuple[str, ...]
    """Each an IP address, a CIDR, or a range `first-last`."""
    ports: tuple[tuple[int, int], ...] = ()
    """For tcp and udp: ranges, first and last included. None at all is every port."""
    icmp_type: int | None = None
    """For icmp and icmpv6; None is any, and so for the next."""
    icmp_code: int | None = None
    log: bool = False
    """Tell of what it lets through."""


@frozen
class BindMount:
    """A directory or file of the host in the container; the cell's configuration says from where it may be."""

    source: str
    """Absolute, below one of `bind_source_dirs`."""
    destination: str
    """Absolute; made when the image does not have it."""
    readonly: bool = True


@frozen
class TmpfsMount:
    """A file system in memory, which counts towards the container's memory; any user may write to it."""

    destination: str
    size_bytes: int
    mode: int = 0o1777


@frozen
class ContainerSpec:
    """What to create. The user process is `path` with `args` (which do not repeat the path)."""

    handle: str
    rootfs: str
    """`preloaded:NAME`, a directory of the cell's image root, or an image: `docker://…`, `oci:…`."""
    path: str
    """Empty: the image's entry point and command."""
    args: tuple[str, ...] = ()
    env: Env = field(default=(), repr=False)
    cwd: str | None = None
    """None: the image's, else the user's home when the image has it, else `/`."""
    user: str = ""
    """A name of the image's passwd, or `uid`, or `uid:gid`. Empty: the image's, else root."""
    image_username: str = ""
    image_password: Secret | None = None
    """For the registry of the image."""
    stdin: bool = False
    """Its process can be given input, at any time, as long as it runs; False: its input is at its end."""
    hostname: str | None = None
    """None: the handle. At most the last 49 characters are used."""
    limits: Limits = Limits()
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    """In this order, after what every container has."""
    ports: tuple[int, ...] = ()
    """Container ports to publish on the host."""
    egress: tuple[EgressRule, ...] = ()
    """What it may reach beside what the cell lets every container reach."""
    privileged: bool = False
    """Root of it is the host's, with every capability of the cell: only where the cell allows that."""
    properties: Mapping[str, str] = field(factory=dict)
    """Opaque to garden: stored, and given back when the container is adopted."""
    network_env: Callable[[Network], Env] | None = field(default=None, repr=False)
    """More environment, once the addresses are known; it wins over all other. Not stored."""
    own_env: Env = field(default=(), repr=False)
    """More environment for its own process alone: extra ones that are launched do not get it."""
    idle: bool = False
    """Its own process only waits, in a few kilobytes: path and args are not looked at. What it is for is launched."""
    lingers: bool = False
    """What its own process leaves behind when it exits with 0 went to the background, and goes on."""
    log_source: str = ""
    """Marks the lines of its own process."""
    silent: bool = False
    """Nothing of what its own process writes is kept."""
    sandbox_of: str | None = None
    """Make a sidecar: in the namespaces of this container but for mount and cgroup, and gone with it at the latest.

    Its handle is its own (HANDLE.NAME, say), and so are image, disk, limits, log and end. Ports, egress and host name
    are those of the other one.
    """


def _cells(_: object, attribute: Attribute[int], value: int) -> None:
    if not 0 <= value <= CELLS_MAX:
        raise ValueError(f"{attribute.name} {value}: 0..{CELLS_MAX}")


@frozen
class Window:
    """The size of a terminal in characters. Raises ValueError."""

    columns: int = field(default=80, validator=_cells)
    rows: int = field(default=24, validator=_cells)


@frozen
class ProcessSpec:
    """One more process inside a running container."""

    path: str
    """Empty: the image's entry point and command."""
    args: tuple[str, ...] = ()
    env: Env = field(default=(), repr=False)
    cwd: str | None = None
    """None: as for the container's own process. Made, as the user's, when it is missing."""
    user: str = "root"
    """Empty: the image's, else root."""
    terminal: Window | None = None
    """Give it a terminal of this size (a session only); None: pipes."""
    nofile: int | None = None
    """Open files; None: as the container's own process. Never above the cell's own hard limit."""
    log_source: str = ""
    """Marks its lines in the log of the container, when it is launched."""
    silent: bool = False
    """Nothing of what it writes is kept, when it is launched."""


@frozen
class MainProcess:
    """The container's own process as it is executed: what the spec said, and the image where that was silent."""

    path: str
    args: tuple[str, ...] = field(repr=False)
    cwd: str
    user: str
    """As it was named; the ids are what became of that in the image's own passwd and group."""
    uid: int
    gid: int


@frozen
class Container:
    """A container as it is now."""

    handle: str
    properties: Mapping[str, str]
    network: Network
    state: State
    limits: Limits
    created_at: datetime
    sandbox_of: str | None = None
    """Of a sidecar: the container whose namespaces and network it has."""
    process: MainProcess | None = None
    """None when an earlier release made it."""
    started_at: datetime | None = None
    """When its own process began."""

    def ran_s(self, now: datetime) -> float:
        """For how long its own process has run; 0 before it began, and when the clock was put back behind that."""
        return 0.0 if self.started_at is None else max(0.0, (now - self.started_at).total_seconds())


@frozen
class Exit:
    """How the user process ended, and what the host saw of it."""

    status: int | None
    """0..255, 128 + signal when a signal ended it; None when nobody was there to see it."""
    signal: int | None
    """The signal that the status stands for, as every container tool reads it (status - 128)."""
    oom_killed: bool
    """The kernel killed at least one process of the container at its memory limit."""
    log_tail: tuple[str, ...]
    cgroup: Mapping[str, int]
    """memory_limit_bytes, memory_peak_bytes, oom_kill, pids_limit, pids_peak: those that the kernel gave."""
    at: datetime
    disk: DiskUsage | None = None
    """What was on its disk then; None when that is not counted."""
    lingers: bool = False
    """Processes that it left behind go on, as the spec wanted. Nothing can be executed beside them any more."""


@frozen
class ExecResult:
    """How an extra process ended; `output` is stdout and stderr as they came, at most the first 64 KiB."""

    status: int | None
    output: str
    timed_out: bool


@frozen
class LogLine:
    """One line the container wrote. `stream` is stdout or stderr; `at` is UTC."""

    at: datetime
    stream: str
    text: str
    source: str = ""
    """Who wrote it, as its process was marked."""
