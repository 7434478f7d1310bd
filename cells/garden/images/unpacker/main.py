"""The program itself: settings as KEY=VALUE arguments, the archive as standard input, one answer on standard output.

The answer is fields that end with a zero byte: `done`, four numbers, the digest, then `o` or `i` and a name for each
marked directory; or `refused`, kind, rule, entry.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys

from cells.garden.images.unpacker.refusal import CORRUPT, FAILED, NO_SPACE, TOO_LARGE, Limits, Refused
from cells.garden.images.unpacker.stream import Stream
from cells.garden.images.unpacker.tree import Owner, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEMORY_BYTES_MAX = 640 * 1024 * 1024
FILES_MAX = 64
COMPRESSIONS = {
    "tar": ("none", "gzip", "bzip2", "xz", "zstd"),
    "tgz": ("gzip",),
    "rootfs": ("none", "gzip", "bzip2", "xz", "zstd"),
    "layer": ("none", "gzip", "zstd"),
}


def main(arguments: list[str]) -> int:
    options = dict(argument.split("=", 1) for argument in arguments)
    limits = Limits({name: int(options[name]) for name in Limits.__slots__})
    _bind_to(int(options["parent"]))
    try:
        answer = _unpack(options, limits)
    except Refused as refused:
        answer = [b"refused", refused.kind.encode(), refused.rule.encode(), refused.entry]
    except MemoryError:
        answer = [b"refused", TOO_LARGE.encode(), b"its directory needs too much memory", b""]
    data = b"".join(field.replace(b"\0", b"") + b"\0" for field in answer)
    while data:
        data = data[os.write(1, data) :]
    return 0


def _unpack(options: dict[str, str], limits: Limits) -> list[bytes]:
    kind, target = options["kind"], int(options["target"])
    digest = None
    if kind == "layer":
        import hashlib

        digest = hashlib.sha256()
    reader = _reader(kind, limits, digest)
    _confine(target, limits)
    tree = Tree(limits, kind, _owner(options), int(options["first_id"]))
    try:
        for entry in reader.entries():
            try:
                tree.place(entry, reader.content)
            except OSError as refused:
                raise _translated(refused, entry.name, limits) from refused
        tree.finish()
    except OSError as refused:
        raise _translated(refused, b"", limits) from refused
    numbers = (tree.entries, tree.bytes, tree.disk_bytes, tree.devices_skipped)
    marks = [b"o" + name for name in sorted(tree.opaque)] + [b"i" + name for name in sorted(tree.implicit)]
    hashed = digest.hexdigest() if digest is not None else ""
    return [b"done", *(str(number).encode() for number in numbers), hashed.encode(), *marks]


def _reader(kind: str, limits: Limits, digest: Any) -> Any:
    """Looks at nothing but what kind of archive it is, and has imported all it will need."""
    if kind == "zip":
        from cells.garden.images.unpacker.zip import ZipReader

        return ZipReader(0, limits)
    from cells.garden.images.unpacker.tar import TarReader

    # What ends where a header could begin is whole when the digest says so, and cannot be known to be otherwise.
    return TarReader(Stream(0, COMPRESSIONS[kind], limits, digest), limits, needs_end=kind != "layer")


def _bind_to(parent: int) -> None:
    """Die with the cell."""
    import prctl

    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _confine(target: int, limits: Limits) -> None:
    """From here on: nothing but the target below `/`, five capabilities, no new ones, no import, and limits."""
    import prctl

    os.fchdir(target)
    os.chroot(".")
    os.chdir("/")
    os.closerange(3, 1 << 16)
    os.umask(0)
    sys.path.clear()
    sys.path_importer_cache.clear()
    for kind, most in (
        (resource.RLIMIT_FSIZE, limits.bytes_max),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_NOFILE, FILES_MAX),
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard - 1 if hard else 0)
        # The kernel warns at the first number of seconds and kills at the second: the signal tells which limit it was.
        resource.setrlimit(kind, (most, most + 1 if kind == resource.RLIMIT_CPU else most))
    # Not MKNOD: the kernel lets anybody make a whiteout, and nothing else shall be made.
    kept = (prctl.CAP_CHOWN, prctl.CAP_DAC_OVERRIDE, prctl.CAP_FOWNER, prctl.CAP_FSETID, prctl.CAP_SETFCAP)
    prctl.capbset.limit(*kept)
    prctl.cap_inheritable.limit()
    prctl.cap_effective.limit(*kept)
    prctl.cap_permitted.limit(*kept)
    prctl.set_no_new_privs(1)


def _owner(options: dict[str, str]) -> Owner:
    if "owner" not in options:
        return None
    uid, gid = options["owner"].split(":")
    return int(uid), int(gid)


def _translated(refused: OSError, entry: bytes, limits: Limits) -> Refused:
    number = refused.errno or 0
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Refused(NO_SPACE, errno.errorcode[number], entry)
    if number in (errno.EFBIG, errno.ENAMETOOLONG):
        return Refused(TOO_LARGE, f"more than {limits.bytes_max} bytes, or too long a name", entry)
    if number == errno.EMLINK:
        return Refused(TOO_LARGE, "more links to one file than the file system has", entry)
    if number == errno.EIO and not entry:
        return Refused(CORRUPT, "it cannot be read", entry)
    return Refused(FAILED, f"{errno.errorcode.get(number, number)}: {os.strerror(number)}", entry)
