"""The socket at which a runtime delivers a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.garden.spec import Window
from cells.garden.terminal import ConsoleSocket, resize
from diego_py.errors import RuntimeFailed


@pytest.fixture
def console(tmp_path: Path) -> Iterator[ConsoleSocket]:
    """Where its path alone is longer than a socket's may be."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with contextlib.closing(ConsoleSocket(deep / "exec-1.sock")) as made:
        yield made


def deliver(console: ConsoleSocket, *fds: int) -> None:
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console.name)
        socket.send_fds(runtime, [b"/dev/ptmx"], fds)


def test_a_terminal_is_received_and_has_a_size(console: ConsoleSocket) -> None:
    master, slave = pty.openpty()
    deliver(console, master)
    received = console.receive()
    resize(received, Window(columns=91, rows=17))
    assert os.get_terminal_size(slave) == (91, 17)
    assert not os.get_inheritable(received)
    for fd in (master, slave, received):
        os.close(fd)


def test_what_is_no_terminal_is_refused_and_closed(console: ConsoleSocket) -> None:
    ends = os.pipe()
    deliver(console, ends[0])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailed):
        console.receive()
    assert len(os.listdir("/proc/self/fd")) == before
    for fd in ends:
        os.close(fd)


def test_nothing_was_sent(console: ConsoleSocket) -> None:
    with pytest.raises(RuntimeFailed):
        console.receive()
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console.name)
    with pytest.raises(RuntimeFailed):
        console.receive()


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ConsoleSocket(tmp_path / "x.sock").close()
    assert (os.listdir(tmp_path), len(os.listdir("/proc/self/fd"))) == ([], before)
