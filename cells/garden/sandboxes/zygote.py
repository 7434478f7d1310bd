"""Makes sandboxes, one after the other, for one garden: `python -I -m cells.garden.sandboxes.zygote`.

A process of its own, because only one with a single thread may become another one half-way through Python; small,
because each sandbox begins as a copy of it, so it imports little. Its standard input is a socket: a request is one JSON
object, and so is the answer to each. It ends with the other end of the socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any

from cells.garden import kernel
from cells.garden.network import pair
from cells.garden.sandboxes import holder, pause

MESSAGE_BYTES_MAX = 4096
SOMEWHERE = "/proc"
"""Any directory that every host has: the empty root is mounted there for a moment, where nobody else sees it."""


def main() -> None:
    # Whoever ignores SIGCHLD need not reap; a holder inherits that, and needs it for the same reason.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests = socket.socket(fileno=0)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    settings = os.open("/proc/sys/user", os.O_PATH | os.O_CLOEXEC)
    ground = holder.Ground(pause.program(), empty_mount_namespace(home), home, settings)
    # Who is killed before it has read an answer resets the connection: that is its end, too.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while data := requests.recv(MESSAGE_BYTES_MAX):
            requests.send(json.dumps(answer(json.loads(data), ground)).encode())


def empty_mount_namespace(home: int) -> int:
    """A mount namespace with an empty root that cannot be written; ours again afterwards is `home`. Raises OSError."""
    kernel.unshare(kernel.CLONE_NEWNS)
    made = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE, "")
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("none", SOMEWHERE, "tmpfs", flags, "mode=0555")
    os.chdir(SOMEWHERE)
    kernel.pivot_root(".", ".")
    kernel.umount(".", kernel.MNT_DETACH)
    kernel.setns(home, kernel.CLONE_NEWNS)
    return made


def answer(request: dict[str, Any], ground: holder.Ground) -> dict[str, Any]:
    """Make what is asked for: a holder that is connected. Says its pid, or what was refused."""
    number, link, step = request["number"], pair.Link(*request["link"]), "hold"
    try:
        pid = holder.make(holder.Wanted(link.name, request["ids"], request["user_limits"]), ground)
        step = "connect"
        try:
            pair.connect(link, pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
    except OSError as refused:
        where = {"at": str(refused.filename), "address": link.address}
        return {"number": number, "errno": refused.errno or 0, "step": step, **where}
    return {"number": number, "pid": pid}


if __name__ == "__main__":
    main()
