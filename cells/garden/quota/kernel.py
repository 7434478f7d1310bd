"""What file systems are asked by ioctl and quotactl. Each function is one request; errors are OSError with the path."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from attrs import frozen

_libc = ctypes.CDLL(None, use_errno=True)

BTRFS, EXT4, XFS = 0x9123683E, 0xEF53, 0x58465342
"""Magic numbers of the file systems that can hold a container to a limit."""

_SYS_QUOTACTL_FD = 443
_PROJECT = 2
_Q_GETQUOTA, _Q_SETQUOTA = 0x800007, 0x800008
_Q_XGETQSTATV = 0x5808
_DQBLK = "=QQQQQQQQI4x"
_LIMITS_VALID = 1 | 4
_BLOCK = 1024
"""quotactl has limits of space in blocks, and use in bytes."""
_PROJECT_COUNTED, _PROJECT_ENFORCED = 1 << 4, 1 << 5

_XATTR = "=IIIII8x"
_PROJECT_INHERIT = 0x200

_FIXED = 0x10 | 0x20
"""Immutable, and append only."""

_VOL_ARGS_BYTES = 4096
_FIRST_FREE_OBJECT = 256
_BY_REFERENCED = 1
_QUOTA_ON, _QUOTA_ON_SIMPLE = 1, 4

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LOOP_CONFIG_BYTES, _LOOP_FLAGS_AT = 304, 8 + 52
_LOOP_AUTOCLEAR = 4
_LOOP_ATTEMPTS = 64


def _ioctl_number(direction: int, letter: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | letter << 8 | number


_WRITE, _READ = 1, 2
_FS_GETXATTR = _ioctl_number(_READ, ord("X"), 31, struct.calcsize(_XATTR))
_FS_SETXATTR = _ioctl_number(_WRITE, ord("X"), 32, struct.calcsize(_XATTR))
_SUBVOLUME_CREATE = _ioctl_number(_WRITE, 0x94, 14, _VOL_ARGS_BYTES)
_SUBVOLUME_DESTROY = _ioctl_number(_WRITE, 0x94, 15, _VOL_ARGS_BYTES)
_INODE_LOOKUP = _ioctl_number(_READ | _WRITE, 0x94, 18, _VOL_ARGS_BYTES)
_GET_FLAGS, _SET_FLAGS = _ioctl_number(_READ, ord("f"), 1, 8), _ioctl_number(_WRITE, ord("f"), 2, 8)
_THAW = _ioctl_number(_READ | _WRITE, ord("X"), 120, 4)
_FS_INFO = _ioctl_number(_READ, 0x94, 31, 1024)
_QUOTA_CONTROL = _ioctl_number(_READ | _WRITE, 0x94, 40, 16)
_QGROUP_CREATE = _ioctl_number(_WRITE, 0x94, 42, 16)
_QGROUP_LIMIT = _ioctl_number(_READ, 0x94, 43, 48)


@frozen
class Quota:
    """What a project uses and may use, in bytes and inodes; a limit of 0 is none."""

    limit_bytes: int
    used_bytes: int
    limit_inodes: int
    used_inodes: int


def file_system(path: str) -> int:
    """The magic number of the file system that `path` is on."""
    found = (ctypes.c_long * 32)()
    if _libc.statfs(os.fsencode(path), ctypes.byref(found)) < 0:
        raise _error(path)
    return int(found[0]) & 0xFFFFFFFF


def project_quota_enforced(path: str) -> bool:
    """The file system counts by project and refuses what is above a project's limit."""
    state = bytearray(256)
    state[0] = 1  # Version of the structure.
    try:
        _quotactl(path, _Q_XGETQSTATV, 0, state)
    except OSError as refused:
        if refused.errno in (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            return False
        raise
    flags: int = struct.unpack_from("=H", state, 2)[0]
    return flags & _PROJECT_COUNTED > 0 and flags & _PROJECT_ENFORCED > 0


def set_project_quota(path: str, project: int, limit_bytes: int, limit_inodes: int) -> None:
    """Hold a project to bytes (in whole KiB) and inodes; 0 is no limit."""
    blocks = -(-limit_bytes // _BLOCK)
    limits = struct.pack(_DQBLK, blocks, blocks, 0, limit_inodes, limit_inodes, 0, 0, 0, _LIMITS_VALID)
    _quotactl(path, _Q_SETQUOTA, project, bytearray(limits))


def project_quota(path: str, project: int) -> Quota:
    answer = bytearray(struct.calcsize(_DQBLK))
    _quotactl(path, _Q_GETQUOTA, project, answer)
    hard, _, used, inodes_hard, _, inodes, *_ = struct.unpack(_DQBLK, answer)
    return Quota(hard * _BLOCK, used, inodes_hard, inodes)


def _quotactl(path: str, command: int, project: int, argument: bytearray) -> None:
    fd = _open(path)
    try:
        place = (ctypes.c_char * len(argument)).from_buffer(argument)
        result = _libc.syscall(_SYS_QUOTACTL_FD, fd, command << 8 | _PROJECT, ctypes.c_uint(project), place)
        if result < 0:
            raise _error(path)
    finally:
        os.close(fd)


def project(path: str) -> int:
    """The project of a file or directory; 0 is none."""
    number: int = struct.unpack_from("=I", _ask(path, _FS_GETXATTR, bytes(struct.calcsize(_XATTR))), 12)[0]
    return number


def set_project(path: str, project: int) -> None:
    """Make a directory, and what will be made in it, a project's."""
    _ask(path, _FS_SETXATTR, struct.pack(_XATTR, _PROJECT_INHERIT, 0, 0, project, 0))


def thaw(path: str) -> None:
    """Let whoever waits to write to the file system that `path` is on go on, if it is frozen."""
    try:
        _ask(path, _THAW, bytes(4))
    except OSError as refused:
        if refused.errno != errno.EINVAL:  # It is not.
            raise


def make_changeable(fd: int) -> None:
    """Take from a file or directory what forbids to change or remove it: that it is immutable, or only grows."""
    flags = bytearray(8)  # A long by the request's number, an int by what the kernel does.
    fcntl.ioctl(fd, _GET_FLAGS, flags)
    (kept,) = struct.unpack_from("=I", flags)
    if kept & _FIXED:
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=II", kept & ~_FIXED, 0))


def create_subvolume(path: Path) -> None:
    _ask(str(path.parent), _SUBVOLUME_CREATE, _named(path.name))


def destroy_subvolume(path: Path) -> None:
    """Take a subvolume away with all that is in it; its space comes back some time later."""
    _ask(str(path.parent), _SUBVOLUME_DESTROY, _named(path.name))


def subvolume_id(path: str) -> int:
    """The number of the subvolume that `path` is in."""
    asked = struct.pack("=QQ", 0, _FIRST_FREE_OBJECT).ljust(_VOL_ARGS_BYTES, b"\0")
    number: int = struct.unpack_from("=Q", _ask(path, _INODE_LOOKUP, asked))[0]
    return number


def btrfs_uuid(path: str) -> str:
    """The name of a btrfs in /sys/fs/btrfs."""
    raw = _ask(path, _FS_INFO, bytes(1024))[16:32].hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def enable_quota(path: str) -> None:
    """Have a btrfs count by subvolume: simple quotas, or qgroups where the kernel (before 6.7) has no others."""
    try:
        _ask(path, _QUOTA_CONTROL, struct.pack("=QQ", _QUOTA_ON_SIMPLE, 0))
    except OSError as refused:
        if refused.errno != errno.EINVAL:
            raise
        _ask(path, _QUOTA_CONTROL, struct.pack("=QQ", _QUOTA_ON, 0))


def limit_subvolume(path: str, limit_bytes: int) -> None:
    _ask(path, _QGROUP_LIMIT, struct.pack("=QQQQQQ", 0, _BY_REFERENCED, limit_bytes, 0, 0, 0))


def remove_qgroup(path: str, subvolume: int) -> None:
    """Forget what was counted for a subvolume. EBUSY while the subvolume is still being taken apart."""
    _ask(path, _QGROUP_CREATE, struct.pack("=QQ", 0, subvolume))


def attach_loop(image: str) -> int:
    """A loop device for a file, as a descriptor; it lets go of the file when neither held nor mounted any more."""
    file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        config = bytearray(_LOOP_CONFIG_BYTES)
        struct.pack_into("=I", config, 0, file)
        struct.pack_into("=I", config, _LOOP_FLAGS_AT, _LOOP_AUTOCLEAR)
        for _ in range(_LOOP_ATTEMPTS):
            device = os.open(f"/dev/loop{_free_loop()}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
            except OSError as taken:
                os.close(device)
                if taken.errno != errno.EBUSY:  # Somebody else was quicker.
                    raise
            else:
                return device
        raise OSError(errno.EBUSY, "every free loop device was taken by somebody else", image)
    finally:
        os.close(file)


def _free_loop() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def _named(name: str) -> bytes:
    return struct.pack("=q", 0) + os.fsencode(name).ljust(_VOL_ARGS_BYTES - 8, b"\0")


def _ask(path: str, request: int, argument: bytes) -> bytearray:
    place = bytearray(argument)
    fd = _open(path)
    try:
        fcntl.ioctl(fd, request, place)
    except OSError as refused:
        raise OSError(refused.errno, refused.strerror, path) from None
    finally:
        os.close(fd)
    return place


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
