"""System calls that Python 3.11 does not offer. Each function is one call; errors are OSError with the path."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_PIVOT_ROOT = 155
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_CLONE3 = 435
_SYS_MOUNT_SETATTR = 442
_SYS_PIDFD_SEND_SIGNAL = 424

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x00100000
_MS_PRIVATE = 1 << 18
_RESOLVE_BENEATH = 0x08
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_EINVAL = 22
_RENAME_EXCHANGE = 2
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x20000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOATIME = 1024
MS_NOEXEC = 8
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CAPABILITIES_MAX = 64
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_DELETE_SELF = 0x400
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def open_tree_clone(path: str) -> int:
    """A detached copy of the mount at `path` (not of those below it), as a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def idmap_mount(tree_fd: int, userns_fd: int) -> None:
    """Shift the ids of a detached mount by the maps of a user namespace."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, userns_fd)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, tree_fd, b"", _AT_EMPTY_PATH, attributes, ctypes.c_size_t(32))
    _check(result, "mount_setattr")


def clone_mount(fd: int) -> int:
    """A detached copy of the mount at what is open, from there on down, without the mounts below it."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    return _check(_libc.syscall(_SYS_OPEN_TREE, fd, b"", flags), "open_tree")


def restrict_mount(tree_fd: int, userns_fd: int | None, readonly: bool) -> None:
    """Shift the ids of a detached mount, if by any, and let it have no devices, no set-user-id programs, no peers."""
    flags = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if readonly else 0)
    flags |= 0 if userns_fd is None else _MOUNT_ATTR_IDMAP
    attributes = struct.pack("=QQQQ", flags, 0, _MS_PRIVATE, userns_fd or 0)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, tree_fd, b"", _AT_EMPTY_PATH, attributes, ctypes.c_size_t(32))
    _check(result, "mount_setattr")


def move_mount(tree_fd: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    result = _libc.syscall(_SYS_MOVE_MOUNT, tree_fd, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, target)


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options))
    _check(result, target)


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), target)


def exchange(one: str, other: str) -> None:
    """Give each of two files the other's name, as one step."""
    result = _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    _check(result, one)


def spread(directory: str) -> None:
    """Have ext4 put the directories that are made in this one far apart from each other; other file systems refuse."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        said = bytearray(8)
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, said)
        (flags,) = struct.unpack_from("=I", said)
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("=Q", flags | _FS_TOPDIR_FL))
    finally:
        os.close(fd)


def unshare(what: int) -> None:
    """Give the calling thread, and only it, its own of what it shared with the others."""
    _check(_libc.unshare(what), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread, and only it, into a namespace."""
    _check(_libc.setns(fd, kind), "setns")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of the mount namespace and put the former one at `old`."""
    _check(_libc.syscall(_SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), new)


def clone(kinds: int) -> int:
    """Fork into new namespaces; answers 0 in the child. Python is not told: for a process with one thread only."""
    arguments = struct.pack("=8Q", kinds, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    return _check(_libc.syscall(_SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments))), "clone")


def drop_bounding_capabilities() -> None:
    """Neither this process nor what it executes can ever get a capability again that it does not have now."""
    for capability in range(CAPABILITIES_MAX):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            if ctypes.get_errno() == _EINVAL:  # One more than this kernel has.
                return
            _check(-1, "prctl PR_CAPBSET_DROP")


def forbid_new_privileges() -> None:
    """What this process executes gains nothing by a setuid bit or file capabilities."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS")


def open_in_root(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process with the root directory `root` would: no symlink leads out of it."""
    return _open(root, path, flags, _RESOLVE_IN_ROOT)


def open_beneath(top: str, path: str, flags: int) -> int:
    """Open `path` below `top`; a link or `..` that leads out of it is an error (EXDEV), also when it leads back."""
    return _open(top, path, flags, _RESOLVE_BENEATH)


def _open(root: str, path: str, flags: int, resolve: int) -> int:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve | _RESOLVE_NO_MAGICLINKS)
        result = _libc.syscall(_SYS_OPENAT2, root_fd, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        return _check(result, path)
    finally:
        os.close(root_fd)


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind a pidfd; False when it is gone."""
    if _libc.syscall(_SYS_PIDFD_SEND_SIGNAL, pidfd, int(number), None, 0) == 0:
        return True
    errno = ctypes.get_errno()
    if errno == 3:
        return False
    raise OSError(errno, os.strerror(errno), "pidfd_send_signal")


def inotify(path: str, mask: int) -> int:
    """A non-blocking descriptor that becomes readable when something in `mask` happens to `path`."""
    fd = _check(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")
    if _libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
        errno = ctypes.get_errno()
        os.close(fd)
        raise OSError(errno, os.strerror(errno), path)
    return fd
