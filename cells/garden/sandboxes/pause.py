"""The program of a holder: it waits for ever. A whole static executable of 129 bytes, written out here.

It handles no signal, so as PID 1 of its namespace it gets none from inside. It need not reap either: whoever executes
it ignores SIGCHLD before, which it inherits; then the kernel lets every orphan that comes to it disappear by itself. It
never runs again. Debian's catatonit does more: it ends at a SIGTERM from anybody in its namespace.
"""

from __future__ import annotations

import struct

from cells.garden import sealed

MACHINE_X86_64 = 62
EXECUTABLE, CURRENT, LOADED = 2, 1, 1
READ_AND_EXECUTE = 5
ADDRESS = 0x400000
PAGE_BYTES = 4096
CODE = bytes.fromhex(
    "b822000000"  # mov eax, 34   (pause)
    "0f05"  # syscall
    "ebf7"  # jmp to the begin: a debugger, say, can make pause return
)

MODE = 0o111
"""Nobody may read it, so the kernel lets nobody without rights on the host look into the process that it becomes."""
NAME = "sandbox"


def executable() -> bytes:
    """An ELF file with one segment: these headers and the code. The layouts are those of elf(5)."""
    header, segment = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
    entry = header.size + segment.size
    size = entry + len(CODE)
    identity = (b"\x7fELF", 2, 1, CURRENT, 0)
    sizes = (header.size, segment.size, 1, 0, 0, 0)
    return (
        header.pack(*identity, EXECUTABLE, MACHINE_X86_64, CURRENT, ADDRESS + entry, header.size, 0, 0, *sizes)
        + segment.pack(LOADED, READ_AND_EXECUTE, 0, ADDRESS, ADDRESS, size, size, PAGE_BYTES)
        + CODE
    )


def program() -> int:
    """The executable as a descriptor to execute it by."""
    return sealed.in_memory(NAME, executable(), MODE)
