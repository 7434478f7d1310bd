"""What garden knows about each container, on disk, written before the side effect that it speaks of.

Layout: STATE/containers/HANDLE/{state.json,bundle/,exit/,lower,rootfs} and STATE/logs/HANDLE.log; STATE/rates/HANDLE
when not all of the log is to be handed out, STATE/sources/HANDLE when the lines of its own process are marked. What the
container itself may write is in its volume: upper, work and etc.

`containers`, and `runtime` with the OCI runtime's own state, are in memory, as runtimes keep theirs in /run: they must
survive the death of this process, not that of the machine, for then no container is left that they could speak of. What
is on the disk, volumes and logs, is: a volume without a record is of a container that went with the machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Literal

import msgspec
from attrs import define, field, frozen

from cells.garden import kernel, memory
from cells.garden.kept_logs import KeptLogs
from cells.garden.sandboxes import pause
from cells.garden.spec import EgressRule, Exit, Limits, MainProcess, PortForward
from diego_py.errors import ImageHasNoCommand

Phase = Literal["creating", "created", "running", "destroying"]

DIRECTORY_MODE = 0o711
"""The container's root enters its own directories as an id that owns nothing on the host: it may pass, not list."""

PRIVATE_MODE = 0o700
BYTES_MAX_EACH = 4 << 20
"""Of memory, for a container's part of each directory; about 80 KiB are used in all."""

STATE, DRAFT = "state.json", "state.new"


@frozen
class FromImage:
    """What the image says of processes that say nothing themselves, however late they come."""

    user: str = "root"
    cwd: str = ""
    """Empty: each user's home."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()

    def command(self, path: str, args: tuple[str, ...]) -> tuple[str, ...]:
        """A path is the whole command with its arguments; those alone take the place of the image's own.

        Raises ImageHasNoCommand.
        """
        command = (path, *args) if path else (*self.entrypoint, *(args or self.cmd))
        if not command:
            raise ImageHasNoCommand("neither the container nor its image names a command")
        return command


@frozen
class Record:
    """One container on disk. `phase` is what was begun, not what succeeded: recovery looks at the host itself."""

    handle: str
    phase: Phase
    id_slot: int
    address_number: int
    ports: tuple[PortForward, ...]
    limits: Limits
    properties: dict[str, str]
    created_at: str
    rootfs: str
    volume: str
    """Its directory: where it was made, whatever the configuration says by now."""
    holder_pid: int = 0
    holder_started: int = 0
    """PID 1 of the container's namespaces; with its start time, as all processes here."""
    monitor_pid: int = 0
    monitor_started: int = 0
    """Start time of the monitor in clock ticks since boot: with the pid it names one process for ever."""
    init_pid: int = 0
    init_started: int = 0
    exit: Exit | None = None
    stdin: bool = False
    """Its process can be given input."""
    layer: str = ""
    """Chain id of the highest layer of the store that it is mounted from; while it exists, the store keeps that."""
    egress: tuple[EgressRule, ...] = ()
    privileged: bool = False
    """It has no user namespace; its ids are the host's."""
    sandbox_of: str | None = None
    """Of a sidecar: the container that its place, ports and holder belong to."""
    part: int = 0
    """A sidecar's number beside that container, which is 0 itself."""
    process: MainProcess | None = None
    """Before it begins already: what was made of the spec and the image."""
    image: FromImage = FromImage()
    log_source: str = ""
    """Marks the lines of its own process."""
    silent: bool = False
    """What its own process writes is not kept."""
    started_at: str = ""
    """When its own process was let begin; empty: it was not."""
    idle: bool = False
    """Its own process only waits."""
    lingers: bool = False
    """What its own process leaves behind when it exits with 0 goes on."""

    @property
    def keeps_output(self) -> bool:
        """Its monitor writes the log."""
        return not self.silent and self.limits.log_bytes_per_second != 0


@frozen
class Directory:
    """The paths of one container."""

    path: Path
    log: Path
    volume: Path
    """All that the container can write to disk, its /etc/hosts included, so that all of it counts."""

    @property
    def state(self) -> Path:
        return self.path / STATE

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def exit(self) -> Path:
        return self.path / "exit"

    @property
    def etc(self) -> Path:
        return self.volume / "etc"

    @property
    def lower(self) -> Path:
        return self.path / "lower"

    @property
    def upper(self) -> Path:
        return self.volume / "upper"

    @property
    def work(self) -> Path:
        return self.volume / "work"

    @property
    def binds(self) -> Path:
        """Directories and files of the host, prepared for the runtime to mount."""
        return self.path / "binds"

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def runtime_log(self) -> Path:
        return self.path / "runtime.log"


@define
class Depot:
    """The state directory of one garden."""

    root: Path
    logs_kept_max: int
    """Of containers that are gone."""
    _kept: KeptLogs = field(init=False)
    _encoder: msgspec.json.Encoder = field(factory=msgspec.json.Encoder, init=False)
    _decoder: msgspec.json.Decoder[Record] = field(factory=lambda: msgspec.json.Decoder(Record), init=False)

    def __attrs_post_init__(self) -> None:
        self._kept = KeptLogs(self.logs, (self.rates, self.sources), self.logs_kept_max)

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def rates(self) -> Path:
        """Bytes a second of logs with a limit, in a file each that lives as long as the log."""
        return self.root / "rates"

    @property
    def sources(self) -> Path:
        """What marks the lines of containers' own processes, in a file each that lives as long as the log."""
        return self.root / "sources"

    @property
    def pause(self) -> Path:
        """What idle containers execute."""
        return self.root / "pause"

    @property
    def runtime(self) -> Path:
        """Where the OCI runtime keeps its own state."""
        return self.root / "runtime"

    @property
    def programs(self) -> Path:
        """Names of programs that are in memory."""
        return self.root / "programs"

    def prepare(self) -> None:
        """Make the layout. Raises OSError."""
        for path in (self.root, self.containers):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(DIRECTORY_MODE)
        if not self.logs.exists():
            # An ext4 without a journal looks for inodes of new logs among all that were just deleted near them.
            with contextlib.suppress(OSError):  # It is no ext4.
                kernel.spread(str(self.root))
        for path in (self.logs, self.rates, self.sources, self.runtime, self.programs):
            path.mkdir(exist_ok=True)
            path.chmod(PRIVATE_MODE)
        draft = self.pause.with_suffix(".new")
        draft.write_bytes(pause.executable())
        draft.chmod(0o555)
        draft.replace(self.pause)  # One that runs goes on with the old file.

    def keep_in_memory(self, containers_max: int) -> None:
        """What need not outlive the machine, until `close`. Raises OSError."""
        for path, mode in ((self.containers, DIRECTORY_MODE), (self.runtime, PRIVATE_MODE)):
            memory.keep(path, mode, containers_max * BYTES_MAX_EACH)

    def close(self) -> None:
        """Let go of the memory when no container is left. Raises OSError."""
        for path in (self.containers, self.runtime):
            if path.exists():
                memory.give_back(path)

    def directory(self, handle: str, volume: str) -> Directory:
        return Directory(self.containers / handle, self.log(handle), Path(volume))

    def log(self, handle: str) -> Path:
        return self._kept.path(handle)

    def make(self, record: Record) -> Directory:
        """Make a container's directory with its first record in it. Raises FileExistsError."""
        directory = self.directory(record.handle, record.volume)
        directory.path.mkdir(mode=DIRECTORY_MODE)
        directory.path.chmod(DIRECTORY_MODE)
        self.save(record)
        self._begin_log(record, directory.log)
        for path in (directory.bundle, directory.exit):
            path.mkdir(mode=0o700)
        for path in (directory.lower, directory.rootfs):
            path.mkdir(mode=DIRECTORY_MODE)
            path.chmod(DIRECTORY_MODE)
        return directory

    def _begin_log(self, record: Record, log: Path) -> None:
        """An earlier container of this handle may have left one."""
        self._kept.begin(record.handle)
        if record.log_source:
            (self.sources / record.handle).write_text(record.log_source)
        if not record.keeps_output:
            log.touch(0o600)  # Its monitor does not make one.
        if record.limits.log_bytes_per_second:
            (self.rates / record.handle).write_text(str(record.limits.log_bytes_per_second))

    def log_rate(self, handle: str) -> int | None:
        """Bytes a second that may be handed out of a log; None: all of it."""
        try:
            return int((self.rates / handle).read_text())
        except FileNotFoundError:
            return None

    def log_source(self, handle: str) -> str:
        """What marks the lines of the container's own process; empty: nothing."""
        try:
            return (self.sources / handle).read_text()
        except FileNotFoundError:
            return ""

    def furnish(self, directory: Directory) -> None:
        """Make what belongs into a new volume. Raises OSError."""
        for path in (directory.etc, directory.upper, directory.work):
            path.mkdir(mode=DIRECTORY_MODE)
            path.chmod(DIRECTORY_MODE)

    def save(self, record: Record) -> None:
        """Replace the record of a container as one step.

        Two files take turns, for a depot that is still on a disk: a new one each time costs ext4 ten times as much, and
        so does the end of an old one, whose name a new one takes: then the new one is written to the disk at once.
        """
        path = f"{self.containers}/{record.handle}/{STATE}"
        draft = f"{self.containers}/{record.handle}/{DRAFT}"
        text = self._encoder.encode(record)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)
        try:
            kernel.exchange(draft, path)
        except OSError as refused:
            if refused.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            os.rename(draft, path)  # The first record, or a file system that exchanges no names.

    def load(self, handle: str) -> Record | None:
        """The record, or None when there is none that can be read: then the container is half-built."""
        try:
            record = self._decoder.decode((self.containers / handle / STATE).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return record if record.handle == handle else None

    def handles(self) -> list[str]:
        """Every container that has a directory, whole or not."""
        return sorted(entry.name for entry in os.scandir(self.containers) if entry.is_dir(follow_symlinks=False))

    def remove(self, handle: str) -> None:
        """Remove a container's directory; the log stays until newer ones want its room. Idempotent.

        The root must be unmounted.
        """
        path = self.containers / handle
        if path.exists():
            remove_tree(str(path))
        self._kept.end(handle)

    def take_up_logs(self) -> None:
        """Find the logs that earlier processes left, and remove the oldest of containers that are gone."""
        self._kept.take_up(set(self.handles()))


def remove_tree(path: str) -> None:
    """Remove a directory in which nobody but us can change anything, with all in it. Raises OSError.

    shutil's own is safe where others could swap a directory for a link, which costs it twice the time.
    """
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


__all__ = ["Depot", "Directory", "Phase", "Record", "remove_tree"]
