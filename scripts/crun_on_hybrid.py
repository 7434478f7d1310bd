"""crun on a host with both cgroup v1 and v2, for tests and measurements only.

crun refuses such a host when the v2 tree has a controller. So it is called through a program that gives it a mount
namespace of its own in which it sees none there: a whole static executable of some 300 bytes, written out here. A shell
with unshare(1) and mount(1) costs each call of crun 4 ms of processor time, a fifth of what it takes itself.
"""

from __future__ import annotations

import functools
import shutil
import struct
from pathlib import Path
from typing import Final

from cells.garden import sealed

UNIFIED: Final = Path("/sys/fs/cgroup/unified/cgroup.controllers")
"""What crun looks at; it is there on hybrid hosts only."""

MACHINE_X86_64, EXECUTABLE, CURRENT, LOADED, READ_AND_EXECUTE = 62, 2, 1, 1, 5
ADDRESS: Final = 0x400000
PAGE_BYTES: Final = 4096
UNSHARE, MOUNT, EXECVE, EXIT = 272, 165, 59, 60
CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE = 0x20000, 0x1000, 0x4000, 0x80000
RDI, RSI, RDX = 7, 6, 2
"""Numbers of registers, for arguments; the fourth is r10, the fifth r8."""
FIRST_ARGUMENT: Final = bytes.fromhex("48c7442408")
"""mov qword [rsp+8], ...: at the begin rsp points at argc, argv follows."""
ARGUMENTS_AND_ENVIRONMENT: Final = bytes.fromhex(
    "488d742408"  # lea rsi, [rsp+8]           (argv)
    "488b0424"  # mov rax, [rsp]               (argc)
    "488d54c410"  # lea rdx, [rsp+rax*8+16]    (envp, after the NULL of argv)
)
SYSCALL: Final = bytes.fromhex("0f05")
LEAVE: Final = bytes.fromhex("f7d889c7")
"""neg eax; mov edi, eax: the errno is the status."""


def write(directory: Path, as_cell: bool = True) -> str:
    """The path of a program that is crun for whoever calls it; written there. Raises FileNotFoundError.

    A cell that was given crun itself would execute a sealed copy of it, so that is what its stand-in does, for as long
    as this process lives.
    """
    crun = shutil.which("crun")
    if crun is None:
        raise FileNotFoundError("crun is not installed")
    if as_cell:
        names = directory / "sealed"
        names.mkdir()
        crun = sealed.name(_copied(crun), names / "crun")
    path = directory / "crun"
    path.write_bytes(executable(crun))
    path.chmod(0o755)
    return str(path)


@functools.cache
def _copied(crun: str) -> int:
    copied = sealed.copy(crun)
    assert copied is not None, "crun is no script"
    return copied


def executable(crun: str) -> bytes:
    """An ELF file with one segment: headers, code, and the words that it needs. The layouts are those of elf(5)."""
    header, segment = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
    entry = header.size + segment.size
    texts = [crun, "crun", "/", "/dev/null", str(UNIFIED)]
    code_bytes = len(_code([0] * len(texts)))
    addresses, words = [], b""
    for text in texts:
        addresses.append(ADDRESS + entry + code_bytes + len(words))
        words += text.encode() + b"\0"
    size = entry + code_bytes + len(words)
    identity = (b"\x7fELF", 2, 1, CURRENT, 0)
    sizes = (header.size, segment.size, 1, 0, 0, 0)
    return (
        header.pack(*identity, EXECUTABLE, MACHINE_X86_64, CURRENT, ADDRESS + entry, header.size, 0, 0, *sizes)
        + segment.pack(LOADED, READ_AND_EXECUTE, 0, ADDRESS, ADDRESS, size, size, PAGE_BYTES)
        + _code(addresses)
        + words
    )


def _code(addresses: list[int]) -> bytes:
    crun, name, top, null, controllers = addresses
    leave = LEAVE + _number(EXIT) + SYSCALL
    steps = [
        _argument(RDI, CLONE_NEWNS) + _number(UNSHARE) + SYSCALL,
        _mount(0, top, MS_REC | MS_SLAVE),
        _mount(null, controllers, MS_BIND),
    ]
    # After each: test eax, eax; jz over leaving.
    checked = b"".join(step + bytes.fromhex("85c0") + b"\x74" + bytes([len(leave)]) + leave for step in steps)
    execute = FIRST_ARGUMENT + struct.pack("<I", name) + ARGUMENTS_AND_ENVIRONMENT
    return checked + execute + _argument(RDI, crun) + _number(EXECVE) + SYSCALL + leave


def _mount(source: int, target: int, flags: int) -> bytes:
    """mount(source, target, NULL, flags, NULL)."""
    fourth = bytes.fromhex("41ba") + struct.pack("<I", flags)  # mov r10d, ...
    fifth = bytes.fromhex("4531c0")  # xor r8d, r8d
    arguments = _argument(RDI, source) + _argument(RSI, target) + _argument(RDX, 0) + fourth + fifth
    return arguments + _number(MOUNT) + SYSCALL


def _argument(register: int, value: int) -> bytes:
    """mov r32, imm32: the upper half becomes 0."""
    return bytes([0xB8 + register]) + struct.pack("<I", value)


def _number(call: int) -> bytes:
    """mov eax, ..."""
    return _argument(0, call)
