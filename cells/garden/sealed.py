"""A program as a file in memory that nobody can write any more, and a name to execute it by.

What runs in a container can get hold of the program that made it (CVE-2019-5736). So runc and crun look what they are
executed from, and unless that is sealed they first make a sealed copy of themselves and execute that, at each call.
They are content with a copy that was made once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

ELF = b"\x7fELF"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Just these are looked for."""
MODE = 0o755
TRIES_MAX = 10
"""In each of them the kernel itself waits for some 150 ms."""


def copy(program: str) -> int | None:
    """A descriptor of the copy; None of a script, which may care where it is. Raises OSError."""
    content = Path(program).read_bytes()
    return in_memory(os.path.basename(program), content, MODE) if content.startswith(ELF) else None


def in_memory(name: str, content: bytes, mode: int) -> int:
    """A file that has no name and that nobody can write any more: a descriptor to execute it by. Raises OSError."""
    writable = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(writable, "wb", closefd=False) as file:
            file.write(content)
        os.fchmod(writable, mode)
        _seal(writable)
        # Another descriptor: nobody can execute what somebody may write through his.
        return os.open(path(writable), os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(writable)


def _seal(writable: int) -> None:
    """The kernel says EBUSY while anybody holds a page of the file, as it does itself for a moment on a busy host."""
    for left in reversed(range(TRIES_MAX)):
        try:
            fcntl.fcntl(writable, fcntl.F_ADD_SEALS, SEALS)
            return
        except OSError as refused:
            if refused.errno != errno.EBUSY or not left:
                raise


def path(copied: int) -> str:
    """Where any process finds it, for as long as this one has it open."""
    return f"/proc/{os.getpid()}/fd/{copied}"


def name(copied: int, link: Path) -> str:
    """A link to it: processes are called by the last word of what they are executed by. Raises OSError."""
    link.unlink(missing_ok=True)
    link.symlink_to(path(copied))
    return str(link)
