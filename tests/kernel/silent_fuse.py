"""A FUSE file system that answers nothing about the file `hang` in it: whoever wants that waits until this server ends.

`python -m tests.kernel.silent_fuse PID PATH`: mount it at PATH of the mount namespace of a process. It says `ready`,
and `hangs` for each that waits. A process whose request the server has read does not even die of SIGKILL. It answers
about a directory `later` until SIGUSR1, and nothing from then on.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys

LOOKUP, GETATTR, STATFS, INIT, FORGET, BATCH_FORGET, INTERRUPT = 1, 3, 17, 26, 2, 42, 36
HEADER, ANSWER = "=IIQQIIII", "=IiQ"
REQUEST_BYTES_MAX = 1 << 17
ENOENT, ENOSYS = 2, 38
DIRECTORY_MODE = 0o40777
FOR_EVER_S = 1 << 31
VERSION = (7, 31)
ROOT, LATER = 1, 2
"""Numbers of directories. What is known of the second one is asked for again each time."""


def main() -> None:
    pid, path = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    mount = ["nsenter", "-t", pid, "-m", "mount", "-t", "fuse", "-o", options, "silent", path]
    subprocess.run(mount, check=True, pass_fds=[device])
    silent: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: silent.append(number))
    while True:
        try:
            request = os.read(device, REQUEST_BYTES_MAX)
        except OSError:  # Unmounted.
            return
        _, operation, unique, node, *_ = struct.unpack_from(HEADER, request)
        name = request[struct.calcsize(HEADER) :] if operation == LOOKUP else b""
        if operation in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        if silent or name.startswith(b"hang\0"):
            print("hangs", flush=True)
        else:
            error, body = answer(operation, node, name)
            os.write(device, struct.pack(ANSWER, struct.calcsize(ANSWER) + len(body), -error, unique) + body)
        if operation == INIT:
            print("ready", flush=True)


def answer(operation: int, node: int, name: bytes) -> tuple[int, bytes]:
    """An error number, or 0 and what follows the header. The layouts are those of linux/fuse.h."""
    if operation == INIT:
        return 0, struct.pack("=IIII", *VERSION, 0, 0).ljust(64, b"\0")
    if operation == LOOKUP and name.startswith(b"later\0"):
        return 0, struct.pack("=QQQQII", LATER, 0, 0, 0, 0, 0) + attributes(LATER)
    if operation == GETATTR:
        return 0, struct.pack("=QII", FOR_EVER_S if node == ROOT else 0, 0, 0) + attributes(node)
    if operation == STATFS:
        return 0, bytes(80)
    return ENOENT if operation == LOOKUP else ENOSYS, b""


def attributes(number: int) -> bytes:
    """Of a directory."""
    sizes_and_times = (0,) * 8
    return struct.pack("=Q5Q3I7I", number, *sizes_and_times, DIRECTORY_MODE, 2, 0, 0, 0, 512, 0)


if __name__ == "__main__":
    main()
