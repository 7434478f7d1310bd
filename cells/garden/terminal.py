"""The terminal of an extra process: the runtime makes it and sends us its master end over a socket.

The socket is reached through our own descriptor of its directory: a socket's path has room for 107 characters, the
path of a container's directory may be longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
from pathlib import Path

from attrs import define, field

from cells.garden.spec import Window
from diego_py.errors import RuntimeFailed

NAME_BYTES_MAX = 4096
"""What the runtime sends along with the descriptor: the name of the terminal."""


@define(eq=False)
class ConsoleSocket:
    """Where the runtime delivers one terminal. Close it in any case."""

    path: Path
    _directory: int = field(init=False)
    _socket: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._directory = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            os.close(self._directory)
            raise
        try:
            self.path.unlink(missing_ok=True)
            self._socket.bind(self.name)
            self._socket.listen(1)
        except OSError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """How other processes of the host call it while it is open."""
        return f"/proc/{os.getpid()}/fd/{self._directory}/{self.path.name}"

    def receive(self) -> int:
        """The master end. The runtime is done: what it sent is there. Raises RuntimeFailed when that is no terminal."""
        try:
            connection, _ = self._socket.accept()
            with connection:
                _, fds, _, _ = socket.recv_fds(connection, NAME_BYTES_MAX, 1)
        except OSError as nothing:
            raise RuntimeFailed("runtime exec: it sent no terminal") from nothing
        if not fds:
            raise RuntimeFailed("runtime exec: it sent no terminal")
        os.set_inheritable(fds[0], False)
        if not stat.S_ISCHR(os.fstat(fds[0]).st_mode):
            os.close(fds[0])
            raise RuntimeFailed("runtime exec: what it sent is no terminal")
        return fds[0]

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):
            os.close(self._directory)
        self.path.unlink(missing_ok=True)


def resize(master: int, window: Window) -> None:
    """Set the size; its foreground processes are told by SIGWINCH when it is another. Raises OSError."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", window.rows, window.columns, 0, 0))
