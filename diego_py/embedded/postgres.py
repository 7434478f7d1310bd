"""A private Postgres server: made on first use in a state directory, our child while we live, gone when we are.

It listens on a unix socket only, never runs as root, and knows nothing of the tables that others make in it.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg
import attrs

from diego_py.embedded.postgres_programs import (
    EmbeddedPostgresError,
    Programs,
    ServerUser,
    choose_user,
    closed_directory,
    find_programs,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

SUPERUSER = "postgres"
PORT = 5432
# sun_path holds 107 bytes and a zero; Postgres adds this name to the directory.
SOCKET_DIR_BYTES_MAX = 107 - len(f"/.s.PGSQL.{PORT}")
SOCKET_DIR_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
DATABASE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
READY_POLL_S = 0.01
CONNECT_TIMEOUT_S = 5.0
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8 * 1024
PROCESSES = Path("/proc")

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Our statements are short: compiling one costs more than running it.
    "jit": "off",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _real(path: Path) -> Path:
    return path.resolve()


@attrs.define
class EmbeddedPostgres:
    """A Postgres server of our own in `state_dir/postgres`.

    Start it from a thread that lives as long as the server shall: the kernel stops the server with that thread.
    When we are root the server runs as another user, who must be able to pass through `state_dir` (mode 0711).
    """

    state_dir: Path = attrs.field(converter=_real)
    durable: bool = True
    """False gives up safety against power loss for speed; for tests."""
    start_timeout_s: float = 60.0
    """For making the data directory, and again for accepting connections; recovery after a crash is part of it."""
    stop_timeout_s: float = 10.0
    """For each of the three ways to stop: fast, immediate, kill."""
    _process: asyncio.subprocess.Process | None = attrs.field(default=None, init=False)
    _socket_dir: Path | None = attrs.field(default=None, init=False)
    _lock: int | None = attrs.field(default=None, init=False)

    async def start(self) -> None:
        """Start the server, on first use make its data directory; returns when it accepts connections."""
        if self._process is not None:
            raise EmbeddedPostgresError(f"start Postgres in {self.home}: this object already started it")
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            user = choose_user(self.data_dir)
            self._make_home(user)
            self._take_lock()
            await self._stop_leftovers()
            programs = await find_programs(self.home, user)
            if not self.data_dir.exists():
                await self._make_data_dir(programs, user)
            self._socket_dir = self._make_socket_dir(user)
            self._process = await self._launch(programs, user)
            await self._wait_until_ready(self._process)
            undo.pop_all()

    async def stop(self) -> None:
        """Stop the server: fast, then immediate, then by force. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                if await _exits_within(process, self.stop_timeout_s):
                    break
        self._socket_dir = None
        if self._lock is None:
            return
        try:
            await self._stop_leftovers()
            self._remove_short_socket_dir()
        finally:
            os.close(self._lock)
            self._lock = None

    async def wait(self) -> int:
        """Wait until the server has exited, by our hand or not, and return its exit status."""
        if self._process is None:
            raise EmbeddedPostgresError(f"wait for Postgres in {self.home}: it is not running")
        return await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def home(self) -> Path:
        return self.state_dir / "postgres"

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def log_path(self) -> Path:
        return self.home / "log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedPostgresError(f"read the process id of Postgres in {self.home}: it is not running")
        return self._process.pid

    @property
    def dsn(self) -> str:
        """Where asyncpg finds the server's first database, as its superuser."""
        return self.database_dsn("postgres")

    def database_dsn(self, name: str) -> str:
        if self._socket_dir is None:
            raise EmbeddedPostgresError(f"address Postgres in {self.home}: it is not running")
        return f"postgresql://{SUPERUSER}@/{name}?host={quote(str(self._socket_dir), safe='')}&port={PORT}"

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, a copy of `template` if one is named, and return its DSN. Nobody may be in the template."""
        copied = f" TEMPLATE {_checked(template)}" if template else ""
        await self._execute(f"CREATE DATABASE {_checked(name)}{copied}")
        return self.database_dsn(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database with whoever is connected to it; one that is not there is fine."""
        await self._execute(f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        try:
            async with _connection(self.dsn) as connection:
                await connection.execute(statement)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise EmbeddedPostgresError(f"run {statement!r} in embedded Postgres") from error

    def _make_home(self, user: ServerUser) -> None:
        for directory in (self.state_dir, self.home):
            if not directory.exists():
                directory.mkdir(parents=True)
                directory.chmod(0o711)
        closed = closed_directory(self.home, user)
        if closed is not None:
            raise EmbeddedPostgresError(
                f"keep Postgres data in {self.home}: the server runs as {user.name}, who may not pass through "
                f"{closed}; choose a state directory elsewhere (/var/lib/diego), or allow it: chmod o+x {closed}"
            )

    def _take_lock(self) -> None:
        """One owner a directory. The kernel lets go of the lock when the owner dies, however it dies."""
        self._lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._lock, 20, 0).decode()
            os.close(self._lock)
            self._lock = None
            raise EmbeddedPostgresError(f"own {self.home}: process {owner} runs the Postgres in it") from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    async def _stop_leftovers(self) -> None:
        """Stop what an owner that was killed left running, and forget the process id it left behind.

        Holding the lock we know that nobody owns these processes. Postgres trusts a process id in its file when any
        process of the same user has it, so an id that was used again would keep the server down for ever.
        """
        pid_file = self.data_dir / "postmaster.pid"
        if not pid_file.exists():
            return
        postmaster = int(pid_file.read_text().partition("\n")[0] or 0)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            running = _server_processes(self.data_dir)
            # Only the first process takes the first two signals as orders; without it the others leave by themselves.
            for pid in running if number == signal.SIGKILL else running & {postmaster}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if await _all_gone_within(running, self.stop_timeout_s):
                break
        if _server_processes(self.data_dir):
            raise EmbeddedPostgresError(f"stop the server left behind in {self.data_dir}: it survives SIGKILL")
        pid_file.unlink(missing_ok=True)

    async def _make_data_dir(self, programs: Programs, user: ServerUser) -> None:
        """Made beside its place and renamed, so that a data directory that exists is a whole one."""
        unfinished = self.home / "data.unfinished"
        await asyncio.to_thread(_remove_tree, unfinished)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, user.uid, user.gid)
        sync = [] if self.durable else ["--no-sync"]
        arguments = [f"--username={SUPERUSER}", "--auth=trust", "--encoding=UTF8", "--locale=C", *sync]
        process = await asyncio.create_subprocess_exec(
            *user.command("KILL", programs.initdb, f"--pgdata={unfinished}", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=user.environment,
        )
        try:
            async with asyncio.timeout(self.start_timeout_s):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise EmbeddedPostgresError(f"make {self.data_dir}: initdb took over {self.start_timeout_s} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            tail = _tail(output)
            raise EmbeddedPostgresError(f"make {self.data_dir}: initdb exited with {process.returncode}\n{tail}")
        unfinished.rename(self.data_dir)

    def _make_socket_dir(self, user: ServerUser) -> Path:
        """A directory that only the server's user and root can enter, short enough for the address of a socket."""
        self._remove_short_socket_dir()
        directory = self.home / "socket"
        # A killed server leaves a socket and a lock file, which keep the next one down while its process id is in use.
        _remove_tree(directory)
        plain = SOCKET_DIR_PLAIN.fullmatch(str(directory))
        if plain and len(os.fsencode(directory)) <= SOCKET_DIR_BYTES_MAX:
            directory.mkdir(mode=0o700)
        else:
            directory = Path(tempfile.mkdtemp(prefix="diego-postgres-", dir="/tmp"))
            self._short_socket_dir.write_text(str(directory))
        os.chown(directory, user.uid, user.gid)
        directory.chmod(0o700)
        return directory

    @property
    def _short_socket_dir(self) -> Path:
        """The file that remembers a socket directory outside of ours, for whoever comes after a crash."""
        return self.home / "socket_dir"

    def _remove_short_socket_dir(self) -> None:
        if self._short_socket_dir.exists():
            _remove_tree(Path(self._short_socket_dir.read_text()))
            self._short_socket_dir.unlink()

    async def _launch(self, programs: Programs, user: ServerUser) -> asyncio.subprocess.Process:
        settings = SETTINGS | (DURABLE if self.durable else NOT_DURABLE)
        settings["unix_socket_directories"] = str(self._socket_dir)
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.rename(self.log_path.with_suffix(".1"))
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *user.command("INT", programs.postgres, "-D", str(self.data_dir), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=user.environment,
                # Ctrl-C in a terminal is for us: we stop the server when those who use it have stopped.
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not await _accepts_connections(self.dsn):
                    if await _exits_within(process, READY_POLL_S):
                        raise self._failure(f"it exited with {process.returncode}")
        except TimeoutError as error:
            raise self._failure(f"no connection within {self.start_timeout_s} s") from error

    def _failure(self, reason: str) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(f"start Postgres in {self.home}: {reason}\n{_tail(self.log_path.read_bytes())}")


def _checked(database: str) -> str:
    """A name that means the same to Postgres with and without quotes."""
    if not DATABASE_NAME.fullmatch(database):
        raise ValueError(f"a database name is lower case letters, digits and _, at most 63: {database!r}")
    return database


@contextlib.asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()


async def _accepts_connections(dsn: str) -> bool:
    try:
        async with _connection(dsn):
            return True
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
        return False


async def _exits_within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
            return True
    except TimeoutError:
        return False


def _server_processes(data_dir: Path) -> set[int]:
    """Postgres processes at work in a data directory. A zombie has no directory any more."""
    if not PROCESSES.is_dir():
        told = f"stop the server left behind in {data_dir}: this system does not tell; end it, and remove"
        raise EmbeddedPostgresError(f"{told} {data_dir / 'postmaster.pid'}")
    found = set()
    for process in PROCESSES.iterdir():
        with contextlib.suppress(OSError):
            in_data_dir = process.name.isdigit() and (process / "cwd").readlink() == data_dir
            if in_data_dir and (process / "comm").read_text() == "postgres\n":
                found.add(int(process.name))
    return found


async def _all_gone_within(pids: set[int], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            for pid in pids:
                await _gone(pid)
            return True
    except TimeoutError:
        return False


async def _gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _tail(log: bytes) -> str:
    return "\n".join(log[-LOG_TAIL_BYTES:].decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _remove_tree(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
