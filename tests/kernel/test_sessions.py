"""Extra processes that somebody talks to: input, output, terminals, signals, and what is left when they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cells.garden.extras import Extras
from cells.garden.garden import Garden
from cells.garden.session import SESSIONS_MAX, Session
from cells.garden.spec import ProcessSpec, Window
from diego_py.errors import (
    ContainerNotFound,
    DiegoError,
    GardenFailed,
    IllegalTransition,
    InvalidSpec,
    PoolExhausted,
    RuntimeFailed,
)
from tests.kernel.containers import SOON_S, call, shell, spec, start, until_printed
from tests.kernel.images import until
from tests.slowness import patient

pytestmark = pytest.mark.kernel

SLEEP = spec("a", "/bin/sleep", "600")


def script(text: str, **more: Any) -> ProcessSpec:
    return ProcessSpec("/bin/sh", ("-c", text), **more)


async def running(garden: Garden, handle: str = "a") -> list[str]:
    """The command lines of all processes in the container."""
    told = await garden.exec(call(), handle, ProcessSpec("/bin/ps", ("-o", "args")), SOON_S)
    return told.output.splitlines()


def descriptors() -> set[tuple[str, str]]:
    """Numbers of those that this process has open, and what each is of."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # That of the list itself, or of another thread.
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


async def ending(session: Session) -> tuple[int | None, bytes, bytes]:
    """Its status and all it wrote; it is closed."""
    async with session:
        assert session.stderr is not None
        out, err = await asyncio.gather(session.stdout.read(), session.stderr.read())
        return await session.wait(), out, err


@pytest.fixture
async def asleep(garden: Garden) -> Garden:
    await start(garden, SLEEP)
    return garden


async def test_input_output_and_status(asleep: Garden) -> None:
    process = script("read line; echo got $line; cat; echo bad >&2; exit 7")
    async with await asleep.open(call(), "a", process) as session:
        assert session.stderr is not None
        assert await session.write(b"hello\n")
        assert await session.stdout.readline() == b"got hello\n"
        assert await session.write(b"the rest")
        await session.close_input()
        assert await session.stdout.read() == b"the rest"
        assert await session.stderr.read() == b"bad\n"
        assert [await session.wait(), await session.wait()] == [7, 7]
        assert not await session.write(b"more")


async def test_output_of_one_that_exits_at_once_is_complete(asleep: Garden) -> None:
    for _ in range(5):
        session = await asleep.open(call(), "a", script("head -c 50000 /dev/zero; echo end >&2"))
        await session.wait()
        assert await ending(session) == (0, bytes(50_000), b"end\n")


async def test_its_own_output_can_be_opened_by_name_by_any_user(asleep: Garden) -> None:
    process = script("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin", user="vcap")
    session = await asleep.open(call(), "a", process)
    await session.write(b"in\n")
    await session.close_input()
    assert await ending(session) == (0, b"out\nin\n", b"err\n")


@pytest.mark.parametrize("terminal", [None, Window()])
async def test_signal_right_after_start(asleep: Garden, terminal: Window | None) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGRTMIN + 3):
        async with await asleep.open(call(), "a", ProcessSpec("/bin/sleep", ("600",), terminal=terminal)) as session:
            assert session.signal(number)
            assert await session.wait() == 128 + number
            assert not session.signal(number)


async def test_what_is_begun_is_the_users_program(asleep: Garden) -> None:
    """Not what the runtime makes it of, whose handlers would swallow a signal."""
    for _ in range(20):
        async with await asleep.open(call(), "a", ProcessSpec("/bin/sleep", ("600",))) as session:
            status = Path(f"/proc/{session.process.pid}/status").read_text()
            assert "Name:\tsleep\n" in status
            assert "SigCgt:\t0000000000000000\n" in status


async def test_signal_to_the_process_or_its_group(asleep: Garden) -> None:
    text = (
        "trap 'echo parent' USR1; sh -c \"trap 'echo child; exit' USR1; echo up; while :; do sleep 0.05; done\" & "
        "wait; wait"
    )
    async with await asleep.open(call(), "a", script(text)) as session:
        assert await session.stdout.readline() == b"up\n"
        session.signal(signal.SIGUSR1)
        assert await session.stdout.readline() == b"parent\n"
        session.signal(signal.SIGUSR1, group=True)
        assert sorted([await session.stdout.readline(), await session.stdout.readline()]) == [b"child\n", b"parent\n"]
        for wrong in (0, 65, -9):
            with pytest.raises(InvalidSpec):
                session.signal(wrong)


async def test_close_kills_it_and_its_children(asleep: Garden) -> None:
    text = "sleep 601 & setsid sleep 602 & trap '' TERM HUP; (trap '' TERM HUP; sleep 603; echo x) & echo up; wait"
    session = await asleep.open(call(), "a", script(text))
    assert await session.stdout.readline() == b"up\n"
    await session.close()
    await session.close()
    assert await session.wait() == 128 + signal.SIGKILL
    assert not [line for line in await running(asleep) if "sleep 60" in line and "600" not in line]


async def test_close_kills_what_an_ended_one_left_in_its_session(asleep: Garden) -> None:
    async with await asleep.open(call(), "a", script("sleep 601 & exit 3")) as session:
        assert await session.wait() == 3
    assert "sleep 601" not in await running(asleep)


async def test_close_wins_against_one_that_forks_without_end(asleep: Garden) -> None:
    session = await asleep.open(call(), "a", script("echo up; while :; do (sleep 601) & done 2>/dev/null", user="vcap"))
    await session.stdout.readline()
    await session.close()
    assert [line for line in await running(asleep) if "sleep 601" in line] == []


async def test_one_that_nobody_reads_stops_neither_its_container_nor_others(asleep: Garden) -> None:
    silent = await asleep.open(call(), "a", script("yes"))
    other = await asleep.open(call(), "a", script("yes | head -c 1000000"))
    status, out, _ = await ending(other)
    assert (status, len(out)) == (0, 1_000_000)
    assert "sleep 600" in " ".join(await running(asleep))
    await asleep.destroy(call(), "a")
    assert await silent.wait() == 128 + signal.SIGKILL


async def test_input_that_nobody_reads_is_held_back(asleep: Garden) -> None:
    async with await asleep.open(call(), "a", ProcessSpec("/bin/sleep", ("600",))) as session:

        async def much() -> None:
            for _ in range(100):
                await session.write(bytes(64 * 1024))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(much(), patient(0.5))


async def test_twenty_at_once(asleep: Garden) -> None:
    async def one(number: int) -> tuple[int | None, bytes, bytes]:
        session = await asleep.open(call(), "a", script(f"cat; echo {number} >&2; exit {number}"))
        await session.write(b"x" * 1000 * number)
        await session.close_input()
        return await ending(session)

    told = await asyncio.gather(*(one(number) for number in range(20)))
    assert told == [(number, b"x" * 1000 * number, f"{number}\n".encode()) for number in range(20)]


async def test_more_than_the_most_are_refused(asleep: Garden) -> None:
    box = asleep._box("a")
    box.runtimes.count = SESSIONS_MAX
    with pytest.raises(GardenFailed) as failed:
        await asleep.open(call(), "a", script("true"))
    assert failed.value.root.code == "garden.pool_exhausted"
    box.runtimes.count = 0


async def test_terminal_has_its_size_and_is_resized(asleep: Garden) -> None:
    text = "stty size; trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done"
    async with await asleep.open(call(), "a", script(text, terminal=Window(columns=101, rows=33))) as session:
        assert session.stderr is None
        assert await session.stdout.readline() == b"33 101\r\n"
        assert await session.stdout.readline() == b"up\r\n"
        session.resize(Window(columns=7, rows=5))
        assert await session.stdout.readline() == b"5 7\r\n"
        await session.write(b"\x03")
        assert b"^C" in await session.stdout.read()
        assert await session.wait() == 128 + signal.SIGINT


async def test_terminal_input_ends_and_belongs_to_its_user(asleep: Garden) -> None:
    text = "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo mine > $(tty); stty -echo -onlcr; echo up; cat"
    async with await asleep.open(call(), "a", script(text, user="vcap", terminal=Window())) as session:
        lines = [await session.stdout.readline() for _ in range(4)]
        assert lines[0].startswith(b"/dev/pts/")
        assert lines[1:] == [b"all\r\n", b"mine\r\n", b"up\n"]
        await session.write(b"line\n")
        await session.close_input()
        assert await session.stdout.read() == b"line\n"
        assert await session.wait() == 0


async def test_terminal_output_of_one_that_exits_at_once_is_complete(asleep: Garden) -> None:
    for _ in range(5):
        process = script("yes 123456789 | head -n 1000", terminal=Window())
        async with await asleep.open(call(), "a", process) as session:
            assert await session.stdout.read() == b"123456789\r\n" * 1000


async def test_no_terminal_no_size(asleep: Garden) -> None:
    async with await asleep.open(call(), "a", script("sleep 600")) as session:
        with pytest.raises(IllegalTransition):
            session.resize(Window())
    with pytest.raises(ValueError, match="columns"):
        Window(columns=65_536)


@pytest.mark.parametrize("terminal", [None, Window()])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"path": "/nope"}, "runtime.exec_not_found"),
        ({"path": "/etc/not-executable"}, "runtime.exec_not_executable"),
        ({"user": "nobody-here"}, "garden.user_not_found"),
    ],
)
async def test_what_cannot_be_started(
    asleep: Garden, terminal: Window | None, changes: dict[str, str], code: str
) -> None:
    before = descriptors()
    process = ProcessSpec(changes.get("path", "/bin/true"), user=changes.get("user", "root"), terminal=terminal)
    with pytest.raises(DiegoError) as failed:
        await asleep.open(call(), "a", process)
    assert failed.value.root.code == code
    assert asleep._box("a").sessions == set()
    await until(lambda: descriptors() <= before)


REFUSED = [
    (None, os, "pipe2", 1),
    (None, os, "pipe2", 3),
    (Window(), os, "dup", 1),
    (Window(), os, "dup", 2),
    (Window(), socket, "socket", 1),
]
"""With or without a terminal; which call is refused, and the how manieth of it."""


@pytest.mark.parametrize(("terminal", "module", "name", "number"), REFUSED)
async def test_no_descriptor_is_left_half_way(
    asleep: Garden, monkeypatch: pytest.MonkeyPatch, terminal: Window | None, module: Any, name: str, number: int
) -> None:
    """What was made of it by then is closed, and the next one is as any other."""
    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(module, name, refusing(getattr(module, name), number))
        with pytest.raises(DiegoError) as failed:
            await asleep.open(call(), "a", ProcessSpec("/bin/sleep", ("602",), terminal=terminal))
    assert isinstance(failed.value.root, PoolExhausted)
    assert failed.value.root.evidence == {"pool": "descriptors", "errno": "EMFILE"}
    await until(lambda: descriptors() <= before)
    assert asleep._box("a").sessions == set()
    assert asleep._host.extras._pids == set()
    assert "sleep 602" not in " ".join(await running(asleep))
    assert await ending(await asleep.open(call(), "a", script("exit 3"))) == (3, b"", b"")


def refusing(real: Callable[..., Any], number: int) -> Callable[..., Any]:
    """As the kernel does it with a process that has as many descriptors as it may have."""
    calls = count(1)

    def refuse(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*arguments, **named)

    return refuse


async def test_not_in_a_container_that_is_not_there_or_has_ended(garden: Garden) -> None:
    with pytest.raises(ContainerNotFound):
        await garden.open(call(), "nobody", script("true"))
    await garden.create(call(), shell("b", "exit 0"))
    assert (await ending(await garden.open(call(), "b", script("echo before"))))[:2] == (0, b"before\n")
    await garden.run(call(), "b")
    await garden.wait("b")
    with pytest.raises(IllegalTransition):
        await garden.open(call(), "b", script("true"))


async def test_the_end_of_the_container_is_the_end_of_its_sessions(garden: Garden) -> None:
    await start(garden, shell("a", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"))
    await until_printed(garden, "a", "ready")
    sessions = [await garden.open(call(), "a", script("trap '' TERM; echo up; sleep 600")) for _ in range(3)]
    for session in sessions:
        await session.stdout.readline()
    assert (await garden.stop(call(), "a", SOON_S)).status == 4
    assert {await session.wait() for session in sessions} == {128 + signal.SIGKILL}


async def test_destroy_while_sessions_begin(garden: Garden) -> None:
    async def one() -> int | None:
        try:
            session = await garden.open(call(), "a", script("sleep 600"))
        except DiegoError:
            return None
        async with session:
            return await session.wait()

    for pause_s in (0.0, 0.01, 0.03):
        await start(garden, SLEEP)
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(one()) for _ in range(5)]
            await asyncio.sleep(patient(pause_s))
            await garden.destroy(call(), "a")
        assert {task.result() for task in begun} <= {None, 128 + signal.SIGKILL}
        assert garden._host.extras == Extras()


async def test_destroying_one_takes_no_status_from_sessions_of_another(garden: Garden) -> None:
    await start(garden, SLEEP)

    async def others() -> None:
        for _ in range(4):
            await start(garden, spec("b", "/bin/sleep", "600"))
            await garden.destroy(call(), "b")

    async def mine() -> set[int | None]:
        return {(await ending(await garden.open(call(), "a", script("exit 5"))))[0] for _ in range(8)}

    _, statuses = await asyncio.gather(others(), mine())
    assert statuses == {5}


async def test_cancelled_while_it_begins(asleep: Garden) -> None:
    for after_s in (0.0, 0.005, 0.02, 0.04):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asleep.open(call(), "a", ProcessSpec("/bin/sleep", ("601",))), patient(after_s))
    for session in list(asleep._box("a").sessions):
        await session.close()
    assert "sleep 601" not in " ".join(await running(asleep))


async def test_sessions_of_a_garden_that_closes_end_and_the_container_goes_on(
    new_garden: Callable[..., Any],
) -> None:
    first = await new_garden()
    await start(first, SLEEP)
    session = await first.open(call(), "a", ProcessSpec("/bin/sleep", ("601",)))
    await first.close()
    assert await session.wait() == 128 + signal.SIGKILL
    second = await new_garden(first.config)
    assert [line for line in await running(second) if "sleep" in line] == ["/bin/sleep 600"]
    await second.destroy(call(), "a")
    first._boxes.clear()


async def test_a_garden_closes_all_else_when_a_session_does_not_end(
    new_garden: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await new_garden()
    await start(first, SLEEP)
    session = await first.open(call(), "a", ProcessSpec("/bin/sleep", ("601",)))

    async def stuck(_: Session) -> None:
        raise RuntimeFailed("end extra process")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "close", stuck)
        with pytest.raises(RuntimeFailed):
            await first.close()
    assert first._monitor._watched == {}
    assert first._host.sandboxes.maker._zygote is None
    assert first._host.link_watch._socket is None
    await session.close()
    second = await new_garden(first.config)
    await second.destroy(call(), "a")
    first._boxes.clear()
