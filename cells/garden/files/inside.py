"""The program that moves files in and out of one container: run as a child, never imported by the cell.

It enters the container's user namespace, if it has one, and its root before it looks at any path, gives up every
capability that the container's root does not have, and becomes the user that the files are for. So a path, however it
is swapped while we walk it, leads to nothing that this user of the container could not reach by itself.

Nothing may be loaded once it is inside: a module, a codec or a name service library would be the container's. So all
imports are done before, the import machinery is emptied, and user names are never asked for (no pwd, no grp).
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import json
import os
import stat
import sys
import tarfile
from typing import IO, Any

import prctl

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
SIGKILL = 9
CHUNK = 256 * 1024
DEPTH_MAX = 1000
"""Directories below each other; each is an open descriptor."""
XATTR = "SCHILY.xattr."
XATTRS = ("user.", "security.capability")
ROOT_KEEPS = (
    prctl.CAP_CHOWN,
    prctl.CAP_DAC_OVERRIDE,
    prctl.CAP_FOWNER,
    prctl.CAP_FSETID,
    prctl.CAP_SETFCAP,
)
MADE_MODE = 0o755
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stream(tarfile.TarFile):
    """An archive that does not remember what went by."""

    members: list[tarfile.TarInfo]

    def forget(self) -> None:
        self.members = []


class Refused(Exception):
    """What the archive may not have; `kind` is a word of its own for the cell."""

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.path = path


def main() -> None:
    job = json.loads(sys.argv[1])
    try:
        enter(job)
        if job["do"] == "in":
            Writer(job["path"], job["bytes_max"], job["entries_max"]).extract(sys.stdin.buffer)
        elif job["do"] == "out":
            Reader(job["bytes_max"], job["entries_max"]).archive(job["path"], sys.stdout.buffer)
        else:
            make_directory(job["path"])
        sys.stdout.flush()
    except Refused as refused:
        fail(refused.kind, refused.path)
    except tarfile.TarError as bad:
        fail("archive", str(bad))
    except OSError as refused:
        fail(errno.errorcode.get(refused.errno or 0, "EIO"), os.fsdecode(refused.filename or job["path"]))
    except BaseException as defect:  # The answer must not need a traceback, which would read files.
        fail("defect", f"{type(defect).__name__}: {defect}")
    os._exit(0)


def fail(kind: str, path: str) -> None:
    said = json.dumps({"kind": kind, "path": path}).encode()
    os.write(2, said)
    os._exit(1)


def enter(job: dict[str, Any]) -> None:
    """Become a process of this container's root directory and this user, with nothing else of the host at hand."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("utf-8", "ascii", "iso8859-1"):
        codecs.lookup(name)
    prctl.set_no_new_privs(1)
    if job["user_namespace"] is not None:
        _setns(libc, job["user_namespace"], CLONE_NEWUSER)
    else:
        prctl.securebits.no_setuid_fixup = True  # We are root here already, and keep our capabilities as there.
    if job["mounts"] is not None:
        _setns(libc, job["mounts"], CLONE_NEWNS)
    else:
        os.fchdir(job["root"])
        os.chroot(".")
    os.chdir("/")
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    os.closerange(3, max(job["fds"]) + 1)
    os.setgroups(job["groups"])
    os.setresgid(job["gid"], job["gid"], job["gid"])
    # Not by way of the container's root: the kernel leaves us our capabilities then, and we choose what remains.
    os.setresuid(job["uid"], job["uid"], job["uid"])
    kept: tuple[int, ...] = ROOT_KEEPS if job["uid"] == 0 else ()
    if job["do"] == "directory":
        kept = (prctl.CAP_DAC_OVERRIDE,)
    prctl.capbset.limit(*kept)
    prctl.cap_effective.limit(*kept)
    prctl.cap_permitted.limit(*kept)
    prctl.set_pdeathsig(SIGKILL)  # The change of user took back what was set before.
    os.umask(0o022)


def _setns(libc: ctypes.CDLL, fd: int, kind: int) -> None:
    if libc.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "namespace")


def make_directory(path: str) -> None:
    """Make a directory, and those above it that are missing, as our user's."""
    os.makedirs(path, MADE_MODE, exist_ok=True)
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "", path)


class Writer:
    """Makes the entries of an archive below one directory. No link below it is followed, whoever made it."""

    def __init__(self, path: str, bytes_max: int, entries_max: int) -> None:
        make_directory(path)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._bytes_left = bytes_max
        self._entries_left = entries_max
        self._directories: list[tuple[str, int, float]] = []

    def extract(self, stream: IO[bytes]) -> None:
        with Stream.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
            for member in archive:
                self._entries_left -= 1
                if self._entries_left < 0:
                    raise Refused("too_many", member.name)
                parts = _parts(member.name)
                if parts:
                    self._make(archive, member, parts)
                archive.forget()
        while stream.read(CHUNK):
            pass  # What follows the end mark: whoever sends it must not find a closed pipe.
        for name, mode, mtime in reversed(self._directories):
            with _Opened(self._open(_parts(name))) as fd:
                os.fchmod(fd, mode)
                os.utime(fd, (mtime, mtime))

    def _make(self, archive: Stream, member: tarfile.TarInfo, parts: list[str]) -> None:
        with _Opened(self._open(parts[:-1])) as here:
            last = parts[-1]
            if member.isdir():
                self._make_directory(here, last)
                self._directories.append((member.name, member.mode & 0o7777, member.mtime))
                return
            if member.islnk():
                self._link(_parts(member.linkname), here, last)
                return
            _clear(here, last)
            if member.isreg():
                self._write(archive, member, here, last)
            elif member.issym():
                os.symlink(member.linkname, last, dir_fd=here)
            elif member.isfifo():
                os.mkfifo(last, member.mode & 0o777, dir_fd=here)
            else:
                raise Refused("device", member.name)

    def _make_directory(self, here: int, last: str) -> None:
        try:
            os.mkdir(last, MADE_MODE, dir_fd=here)
        except FileExistsError:
            os.close(os.open(last, DIRECTORY, dir_fd=here))

    def _link(self, target: list[str], here: int, last: str) -> None:
        if not target:
            raise Refused("unsafe_name", last)
        with _Opened(self._open(target[:-1])) as there:
            _clear(here, last)
            os.link(target[-1], last, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)

    def _write(self, archive: Stream, member: tarfile.TarInfo, here: int, last: str) -> None:
        self._bytes_left -= member.size
        if self._bytes_left < 0:
            raise Refused("too_large", member.name)
        content = archive.extractfile(member)
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(last, flags, 0o600, dir_fd=here), "wb", buffering=0) as file:
            while chunk := content.read(CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            for name, value in _xattrs_of(member):
                os.setxattr(file.fileno(), name, value)
            os.fchmod(file.fileno(), member.mode & 0o7777)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _open(self, parts: list[str]) -> int:
        """The directory of these names, made where it is missing; to be closed."""
        here = os.dup(self._root)
        for part in parts:
            try:
                self._make_directory(here, part)
                there = os.open(part, DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = there
        return here


class _Opened:
    """A descriptor for as long as a block takes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Refused("unsafe_name", name)
    return parts


def _clear(here: int, last: str) -> None:
    """As tar does: what is there makes way, but for a directory."""
    try:
        os.unlink(last, dir_fd=here)
    except FileNotFoundError:
        return


def _xattrs_of(member: tarfile.TarInfo) -> list[tuple[str, bytes]]:
    found = []
    for key, value in member.pax_headers.items():
        name = key.removeprefix(XATTR)
        if name != key and name.startswith(XATTRS):
            found.append((name, value.encode("utf-8", "surrogateescape")))
    return found


class Reader:
    """Writes the archive of what is at a path."""

    def __init__(self, bytes_max: int, entries_max: int) -> None:
        self._bytes_left = bytes_max
        self._entries_left = entries_max

    def archive(self, path: str, stream: IO[bytes]) -> None:
        """`path/` is what is in the directory, `path` the directory or file itself with its last name."""
        contents = path.endswith("/")
        where, last = os.path.split(path.rstrip("/") or "/")
        with Stream.open(fileobj=stream, mode="w|", bufsize=CHUNK, format=tarfile.PAX_FORMAT) as archive:
            if contents or not last:
                self._directory(archive, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ".")
                return
            with _Opened(os.open(where or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as here:
                self._entry(archive, here, last, last)

    def _directory(self, archive: Stream, top: int, name: str) -> None:
        """What `top` is and all below it. Walked by descriptors: a directory that becomes a link is not followed."""
        way = [(top, name, self._contents(archive, top, name))]
        try:
            while way:
                here, name, directories = way[-1]
                if not directories:
                    os.close(way.pop()[0])
                    continue
                last = directories.pop()
                if len(way) > DEPTH_MAX:
                    raise Refused("too_deep", name)
                with contextlib.suppress(FileNotFoundError):  # It went meanwhile: then it is not there.
                    there = os.open(last, DIRECTORY, dir_fd=here)
                    below = f"{name}/{last}"
                    way.append((there, below, self._contents(archive, there, below)))
        finally:
            for fd, _, _ in way:
                os.close(fd)

    def _contents(self, archive: Stream, here: int, name: str) -> list[str]:
        """Add the directory and what is in it but for directories, which are answered."""
        self._add(archive, _described(name, os.fstat(here), None))
        directories = []
        for last in sorted(os.listdir(here), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(last, dir_fd=here, follow_symlinks=False).st_mode):
                    directories.append(last)
                else:
                    self._entry(archive, here, last, f"{name}/{last}")
        return directories

    def _entry(self, archive: Stream, here: int, last: str, name: str) -> None:
        status = os.stat(last, dir_fd=here, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._directory(archive, os.open(last, DIRECTORY, dir_fd=here), name)
        elif stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(last, flags, dir_fd=here), "rb") as file:
                described = _described(name, os.fstat(file.fileno()), file.fileno())
                self._add(archive, described, file if described.isreg() else None)
        elif not stat.S_ISSOCK(status.st_mode):
            described = _described(name, status, None)
            if described.issym():
                described.linkname = os.readlink(last, dir_fd=here)
            self._add(archive, described)

    def _add(self, archive: Stream, described: tarfile.TarInfo, file: IO[bytes] | None = None) -> None:
        self._bytes_left -= described.size
        self._entries_left -= 1
        if self._bytes_left < 0:
            raise Refused("too_large", described.name)
        if self._entries_left < 0:
            raise Refused("too_many", described.name)
        archive.addfile(described, file)
        archive.forget()


TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def _described(name: str, status: os.stat_result, fd: int | None) -> tarfile.TarInfo:
    """A header with numbers only: tarfile's own way would ask name services who the owner is."""
    described = tarfile.TarInfo(name)
    described.type = TYPES[stat.S_IFMT(status.st_mode)]
    described.mode = stat.S_IMODE(status.st_mode)
    described.uid, described.gid = status.st_uid, status.st_gid
    described.mtime = int(status.st_mtime)
    described.size = status.st_size if described.isreg() else 0
    if described.ischr() or described.isblk():
        described.devmajor, described.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if fd is not None and described.isreg():
        names = [name for name in os.listxattr(fd) if name.startswith(XATTRS)]
        described.pax_headers = {
            XATTR + name: os.getxattr(fd, name).decode("utf-8", "surrogateescape") for name in names
        }
    return described


if __name__ == "__main__":
    main()
