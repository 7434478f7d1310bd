"""Making the entries of an archive below `/`, which is the target: this process is in its chroot when it comes here.

A name is walked component by component. In a layer a symbolic link on the way is followed (packages rely on it, and the
chroot is all that it can lead through); in any other archive it is refused.
"""

from __future__ import annotations

import errno
import os
import stat

from cells.garden.images.unpacker import writing
from cells.garden.images.unpacker.entry import DEVICE, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from cells.garden.images.unpacker.refusal import (
    COMPONENT_BYTES_MAX,
    CORRUPT,
    ID_MAX,
    MARKS_MAX,
    NAME_BYTES_MAX,
    TOO_LARGE,
    UNSAFE,
    Limits,
    Refused,
)
from cells.garden.images.unpacker.writing import DISK_BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cells.garden.images.unpacker.writing import Content

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."
SYSTEMS = ("layer", "rootfs")
"""Kinds that make root file systems: they keep attributes and set-user-id bits."""
MOUNT_POINTS = (b"dev", b"proc", b"sys")
XATTRS_KEPT = (b"user.", b"security.capability")
XATTRS_NEVER = (b"user.overlay.",)
"""overlayfs would take these for its own and look elsewhere for a file or a directory."""
REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What looking at a directory answers when a later entry came into its place, or of one above it."""
HERE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Owner = tuple[int, int] | None


class Tree:
    """What was made, and what the cell must be told of it."""

    def __init__(self, limits: Limits, kind: str, owner: Owner, first_id: int) -> None:
        self._limits = limits
        self._layer = layer = kind == "layer"
        self._system = kind in SYSTEMS
        self._owner = owner
        self._first_id = first_id
        self._root = os.open("/", HERE)
        self._parent: tuple[tuple[bytes, ...], int, int] | None = None
        self._times: dict[bytes, int] = {}
        self.entries = 0
        self.bytes = 0
        self.disk_bytes = 0
        self.devices_skipped = 0
        self.opaque: set[bytes] = set()
        """Directories that hide those of the layers below; only the cell may say so to overlayfs."""
        self.implicit: dict[bytes, None] = {b"": None} if layer else {}
        """Directories that no entry speaks of: theirs are the mode and the owner that they have in the layers below."""

    def place(self, entry: Entry, content: Content) -> None:
        """Make one entry. Raises Refused, OSError."""
        self.entries += 1
        self.bytes += entry.size
        limits = self._limits
        if self.entries > limits.entries_max:
            raise Refused(TOO_LARGE, f"more than {limits.entries_max} entries", entry.name)
        if self.bytes > limits.bytes_max:
            raise Refused(TOO_LARGE, f"more than {limits.bytes_max} bytes unpacked", entry.name)
        if max(entry.uid, entry.gid) > ID_MAX and self._owner is None:
            raise Refused(UNSAFE, f"owner {entry.uid}:{entry.gid} is above {ID_MAX}", entry.name)
        parts = self._parts(entry.name, entry.name)
        if entry.kind == DEVICE and self._layer:
            self.devices_skipped += 1
            return
        if entry.kind in (DEVICE, FIFO) and not self._layer:
            raise Refused(UNSAFE, "devices and pipes are not taken", entry.name)
        if not parts:
            if entry.kind != DIRECTORY:
                raise Refused(UNSAFE, "the root of the tree must be a directory", entry.name)
            self._dress_directory(entry, b"", self._root, b".")
        elif self._layer and parts[-1].startswith(WHITEOUT):
            self._white_out(entry, parts)
        else:
            self._make(entry, parts, content)

    def finish(self) -> None:
        """Once all entries are there: times of directories, and a last look at what the runtime will mount on."""
        self._forget_parent()
        for name, mtime in self._times.items():
            try:
                os.utime(b"/" + name, (mtime, mtime), follow_symlinks=False)
            except OSError as refused:
                if refused.errno not in REPLACED:
                    raise
        self.opaque = {name for name in self.opaque if self._is_directory(name)}
        self.implicit = {name: None for name in self.implicit if self._is_directory(name)}
        if self._system:
            for name in MOUNT_POINTS:
                status = self._look(self._root, name)
                if status is not None and not (stat.S_ISDIR(status.st_mode) or _is_whiteout(status)):
                    raise Refused(UNSAFE, "must be a real directory, or absent", name)

    def _is_directory(self, name: bytes) -> bool:
        """Whether a marked directory is still one: a later entry may have come into the place of what it was in."""
        try:
            os.close(os.open(b"/" + name, HERE | os.O_NOFOLLOW))
        except OSError as gone:
            if gone.errno not in REPLACED:
                raise
            return False
        return True

    # Names

    def _parts(self, name: bytes, of: bytes) -> tuple[bytes, ...]:
        """The components of a name. Raises Refused for one that leads, or could be read as leading, elsewhere."""
        if len(name) > NAME_BYTES_MAX or not name:
            raise Refused(TOO_LARGE if name else CORRUPT, f"a name of {len(name)} bytes; at most {NAME_BYTES_MAX}", of)
        if name.startswith(b"/") and not self._layer:
            raise Refused(UNSAFE, "absolute names are not taken", of)
        if b"\0" in name:
            raise Refused(CORRUPT, "a name with a zero byte", of)
        parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
        if b".." in parts:
            raise Refused(UNSAFE, "'..' in a name", of)
        if len(parts) > self._limits.depth_max or any(len(part) > COMPONENT_BYTES_MAX for part in parts):
            most = f"{self._limits.depth_max} components of {COMPONENT_BYTES_MAX} bytes"
            raise Refused(TOO_LARGE, f"a name of more than {most}", of)
        if self._layer and any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise Refused(UNSAFE, "something below a whiteout", of)
        return parts

    def _directory(self, parts: tuple[bytes, ...], of: bytes, make: bool = True) -> int:
        """A descriptor of the directory, made with those on its way if they are missing; ours until the next call."""
        if self._parent is not None and self._parent[0] == parts:
            return self._parent[1]
        self._forget_parent()
        here, depth = os.dup(self._root), 0
        try:
            for length in range(1, len(parts) + 1):
                there, depth = self._step(here, depth, parts[:length], of, make)
                os.close(here)
                here = there
        except BaseException:
            os.close(here)
            raise
        self._parent = (parts, here, depth)
        return here

    def _step(self, here: int, depth: int, way: tuple[bytes, ...], of: bytes, make: bool) -> tuple[int, int]:
        part = way[-1]
        if depth >= self._limits.depth_max:
            raise Refused(TOO_LARGE, f"more than {self._limits.depth_max} directories below each other", of)
        try:
            return os.open(part, HERE | os.O_NOFOLLOW, dir_fd=here), depth + 1
        except FileNotFoundError:
            if not make:
                raise
            self._make_directory(here, part)
            self._mark(self.implicit, b"/".join(way))
        except NotADirectoryError as other:
            status = os.lstat(part, dir_fd=here)
            if self._layer and stat.S_ISLNK(status.st_mode):
                return self._through(here, part, of)
            if not (self._layer and _is_whiteout(status) and make):
                rule = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
                raise Refused(UNSAFE, f"{rule} on its way: {_printable(part)}", of) from other
            os.unlink(part, dir_fd=here)
            self._make_directory(here, part)
            self._mark(self.implicit, b"/".join(way))
            self._opaque(b"/".join(way))
        return os.open(part, HERE | os.O_NOFOLLOW, dir_fd=here), depth + 1

    def _through(self, here: int, part: bytes, of: bytes) -> tuple[int, int]:
        """Follow a link. However it leads, no tree becomes deeper than a name may be long: rmtree must master it."""
        try:
            there = os.open(part, HERE, dir_fd=here)
        except OSError as refused:
            raise Refused(UNSAFE, f"a symbolic link on its way leads nowhere: {_printable(part)}", of) from refused
        depth, up = 0, os.dup(there)
        while not os.path.sameopenfile(up, self._root) and depth <= self._limits.depth_max:
            higher = os.open("..", HERE, dir_fd=up)
            os.close(up)
            up, depth = higher, depth + 1
        os.close(up)
        return there, depth

    def _make_directory(self, here: int, part: bytes) -> None:
        os.mkdir(part, 0o755, dir_fd=here)
        uid, gid = self._ids(0, 0)
        os.chown(part, uid, gid, dir_fd=here, follow_symlinks=False)
        self.disk_bytes += DISK_BLOCK
        self._count_implicit()

    def _count_implicit(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries_max:
            raise Refused(TOO_LARGE, f"more than {self._limits.entries_max} entries")

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _mark(self, marks: dict[bytes, None], name: bytes) -> None:
        if self._layer:
            marks[name] = None
            self._count_marks()

    def _opaque(self, name: bytes) -> None:
        self.opaque.add(name)
        self._count_marks()

    def _count_marks(self) -> None:
        if len(self.implicit) + len(self.opaque) > MARKS_MAX:
            raise Refused(TOO_LARGE, f"more than {MARKS_MAX} directories that are opaque or have no entry")

    # Entries

    def _make(self, entry: Entry, parts: tuple[bytes, ...], content: Content) -> None:
        here, last = self._directory(parts[:-1], entry.name), parts[-1]
        name = b"/".join(parts)
        there = self._look(here, last)
        if entry.kind == DIRECTORY:
            if there is None or not stat.S_ISDIR(there.st_mode):
                self._clear(here, last, name, there, entry)
                os.mkdir(last, 0o755, dir_fd=here)
                self.disk_bytes += DISK_BLOCK
                if there is not None and _is_whiteout(there):
                    self._opaque(name)
            self._dress_directory(entry, name, here, last)
            return
        if entry.kind == HARDLINK:
            self._link(entry, parts, there)
            return
        self._clear(here, last, name, there, entry)
        if entry.kind == FILE:
            self._write(entry, here, last, content)
            return
        if entry.kind == SYMLINK:
            if not 0 < len(entry.link) < NAME_BYTES_MAX or b"\0" in entry.link:
                raise Refused(CORRUPT, f"a link target of {len(entry.link)} bytes", entry.name)
            os.symlink(entry.link, last, dir_fd=here)
        else:
            os.mkfifo(last, 0o600, dir_fd=here)
            os.chmod(last, self._mode(entry), dir_fd=here)
        uid, gid = self._ids(entry.uid, entry.gid)
        os.chown(last, uid, gid, dir_fd=here, follow_symlinks=False)
        if entry.mtime is not None:
            os.utime(last, (entry.mtime, entry.mtime), dir_fd=here, follow_symlinks=False)

    def _write(self, entry: Entry, here: int, last: bytes, content: Content) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(last, flags, 0o600, dir_fd=here)
        try:
            if entry.extents is None:
                written, disk_bytes = writing.whole(content, fd)
                self.bytes += max(0, written - entry.size)
            else:
                disk_bytes = writing.parts(content, fd, entry.extents, entry.size)
            self.disk_bytes += disk_bytes
            uid, gid = self._ids(entry.uid, entry.gid)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, self._mode(entry))
            self._set_xattrs(fd, entry)
            if entry.mtime is not None:
                os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _link(self, entry: Entry, parts: tuple[bytes, ...], there: os.stat_result | None) -> None:
        """A second name of a file that came before it. Never of a directory, and never of what is not in the tree."""
        source = self._parts(entry.link, entry.name)
        try:
            if not source:
                raise Refused(UNSAFE, "a hard link to the root of the tree", entry.name)
            found = os.dup(self._directory(source[:-1], entry.name, make=False))
        except FileNotFoundError as missing:
            raise Refused(UNSAFE, "a hard link to what is not in the archive", entry.name) from missing
        try:
            status = self._look(found, source[-1])
            if status is None or not (stat.S_ISREG(status.st_mode) or (self._layer and stat.S_ISLNK(status.st_mode))):
                raise Refused(UNSAFE, "a hard link to what is no file of the archive", entry.name)
            if there is not None and os.path.samestat(status, there):
                return
            here = self._directory(parts[:-1], entry.name)
            self._clear(here, parts[-1], b"/".join(parts), there, entry)
            os.link(source[-1], parts[-1], src_dir_fd=found, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(found)

    def _dress_directory(self, entry: Entry, name: bytes, here: int, last: bytes) -> None:
        fd = os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        try:
            if self._system or name:  # The root of any other archive is the target's own, which was there before.
                uid, gid = self._ids(entry.uid, entry.gid)
                os.fchown(fd, uid, gid)
                os.fchmod(fd, self._mode(entry))
                self._set_xattrs(fd, entry)
        finally:
            os.close(fd)
        self.implicit.pop(name, None)
        if entry.mtime is not None and name:
            self._times[name] = entry.mtime

    def _white_out(self, entry: Entry, parts: tuple[bytes, ...]) -> None:
        last = parts[-1]
        directory = parts[:-1]
        if last == OPAQUE:
            self._directory(directory, entry.name)
            self._opaque(b"/".join(directory))
            return
        if last.startswith(AUFS):
            return  # Bookkeeping of a file system of old.
        hidden = last[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Refused(UNSAFE, "a whiteout of nothing", entry.name)
        here = self._directory(directory, entry.name)
        there = self._look(here, hidden)
        if there is None:
            os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=here)
        elif stat.S_ISDIR(there.st_mode):
            self._opaque(b"/".join((*directory, hidden)))

    def _clear(self, here: int, last: bytes, name: bytes, there: os.stat_result | None, entry: Entry) -> None:
        """Make room for an entry: the last one of a name counts."""
        if there is None:
            return
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(last, dir_fd=here)
            return
        if not self._layer:
            raise Refused(UNSAFE, "a file in the place of a directory", entry.name)
        self._remove(here, last)
        self._times.pop(name, None)
        below = name + b"/"
        for marks in (self.opaque, self.implicit):
            for mark in [mark for mark in marks if mark == name or mark.startswith(below)]:
                marks.discard(mark) if isinstance(marks, set) else marks.pop(mark)

    def _remove(self, here: int, last: bytes) -> None:
        fd = os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        try:
            for item in os.listdir(fd):
                name = os.fsencode(item)
                if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    self._remove(fd, name)
                else:
                    os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(last, dir_fd=here)

    def _set_xattrs(self, fd: int, entry: Entry) -> None:
        for key, value in entry.xattrs.items():
            if not self._system or not key.startswith(XATTRS_KEPT) or key.startswith(XATTRS_NEVER):
                continue
            try:
                os.setxattr(fd, key, value)
            except OSError as refused:
                if refused.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.E2BIG, errno.ERANGE, errno.ENOSPC):
                    raise
                if refused.errno != errno.EOPNOTSUPP:
                    raise Refused(UNSAFE, f"attribute {_printable(key)} cannot be set", entry.name) from refused

    def _look(self, here: int, last: bytes) -> os.stat_result | None:
        try:
            return os.lstat(last, dir_fd=here)
        except FileNotFoundError:
            return None

    def _ids(self, uid: int, gid: int) -> tuple[int, int]:
        return self._owner or (self._first_id + uid, self._first_id + gid)

    def _mode(self, entry: Entry) -> int:
        """A root file system has programs that run as somebody else; no other archive has a say in that."""
        return entry.mode & (0o7777 if self._system else 0o1777)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _printable(name: bytes) -> str:
    return repr(name[:100])[1:]
