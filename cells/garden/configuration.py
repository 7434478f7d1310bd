"""How a runtime gets its configuration: from a file, or from a pipe at which it waits while that is still being made.

Half of what a runtime in Go does before it makes anything is loading itself.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
from attrs import define

from cells.garden.bundle.plan import Config

NAME = "config.json"
DRAFT = "config.new"
MODE = 0o600
"""For the runtime only: the environment is in it."""
NOTHING = b"]"
"""No JSON: whoever reads it gives up, and has made nothing yet."""


@define
class Pipe:
    """The configuration of a runtime that was begun already.

    Both ends are open here until `close`: whoever opens it meanwhile does not wait for that, and reads no end.
    """

    _directory: Path
    _pipe: int

    def give(self, text: bytes) -> None:
        """For whoever reads the pipe, and, as a file in its place, for whoever comes later. Raises OSError."""
        write(self._directory, text)
        if len(text) > fcntl.fcntl(self._pipe, fcntl.F_GETPIPE_SZ):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, len(text))
        os.write(self._pipe, text)

    def refuse(self) -> None:
        """There is none: whoever reads the pipe gives up, and so does whoever comes later. Takes no room on a disk."""
        (self._directory / NAME).unlink(missing_ok=True)
        os.write(self._pipe, NOTHING)

    def close(self) -> None:
        """At the end of what was given, if nobody else has it open. Not before the runtime has read it."""
        os.close(self._pipe)


def pipe(directory: Path) -> Pipe:
    """One in a bundle. Raises OSError."""
    path = directory / NAME
    os.mkfifo(path, MODE)
    return Pipe(directory, os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def write(directory: Path, text: bytes) -> None:
    """As a file of the bundle, in one step. Raises OSError."""
    fd = os.open(directory / DRAFT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with open(fd, "wb") as file:
        file.write(text)
    os.rename(directory / DRAFT, directory / NAME)


def encode(config: Config) -> bytes:
    """As runtimes read it."""
    return msgspec.json.encode(config)
