"""Nothing that an archive can say reaches anything outside the directory it is unpacked into."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.garden.images.unpack import UnpackLimits, extract
from diego_py.errors import DiegoError
from tests.kernel.hostile import HARMLESS, TOKEN, Case, cases
from tests.kernel.slot import STATE_PREFIX
from tests.slowness import patient

pytestmark = pytest.mark.kernel

SEED = 20_26
COUNT = int(os.environ.get("DIEGO_HOSTILE_ARCHIVES", "200"))
"""Archives of each kind: on a machine where each child takes a second, fewer."""
AT_ONCE = 3
LIMITS = UnpackLimits(
    bytes_max=4 << 20,
    entries_max=500,
    depth_max=50,
    ratio_max=100,
    ratio_free_bytes=1 << 20,
    cpu_s=int(patient(10)),
    wall_s=patient(30.0),
)
HOST_FILES = ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc", "/")
HOST_PLACES = ("/", "/etc", "/tmp", "/proc/self/cwd", "/dev")


@pytest.fixture
def base() -> Iterator[Path]:
    """In memory: what takes long otherwise is to remove all the files again."""
    with tempfile.TemporaryDirectory(prefix=STATE_PREFIX, dir="/dev/shm") as made:
        yield Path(made)


@pytest.mark.timeout(patient(600))  # 800 children, one after another: a machine that is busy takes minutes.
async def test_hostile_archives(host_sweep: None, base: Path) -> None:
    canary = base / "canary"
    _make_canary(canary)
    host, before = _host(), _snapshot(canary)
    told: Counter[str] = Counter()
    waiting = cases(SEED, COUNT, canary)

    async def work() -> None:
        for case in waiting:
            told[await _attack(case, base, canary, before)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    assert _host() == host
    assert not [place for place in HOST_PLACES for name in os.listdir(place) if TOKEN in name]
    assert sum(told.values()) == 4 * COUNT
    # All four reasons occur, and not everything is refused: the list is no monoculture.
    assert min(told.values()) >= max(1, COUNT // 20), told
    assert len(told) == 5, told


async def _attack(case: Case, base: Path, canary: Path, before: object) -> str:
    """Unpack it; returns what became of it, which must be one of the things allowed."""
    target, archive = base / f"target {case.name}", base / f"archive {case.name}"
    target.mkdir()
    archive.write_bytes(case.data)
    fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await extract(fd, case.kind, target, LIMITS)  # type: ignore[arg-type]
        outcome = message = HARMLESS
    except DiegoError as refused:
        outcome, message = refused.code, refused.message
    finally:
        os.close(fd)
    assert outcome in case.allowed, f"{case.name}: {outcome} {message}"
    assert message.isprintable(), f"{case.name}: {message!r}"
    assert _snapshot(canary) == before, case.name
    _check_tree(case, target)
    shutil.rmtree(target)
    archive.unlink()
    return outcome


def _check_tree(case: Case, target: Path) -> None:
    """Whatever was made, of a refused archive too, has nothing of which anybody else could suffer."""
    links: Counter[tuple[int, int]] = Counter()
    expected: dict[tuple[int, int], int] = {}
    entries = size = 0
    for path, directories, files in os.walk(target):
        assert path.removeprefix(str(target)).count("/") <= LIMITS.depth_max, case.name
        for name in directories + files:
            entries += 1
            place = os.path.join(path, name)
            status = os.lstat(place)
            _check_one(case, place, status)
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                links[status.st_dev, status.st_ino] += 1
                expected[status.st_dev, status.st_ino] = status.st_nlink
                size += status.st_size
    assert dict(links) == expected, f"{case.name}: a file has a name outside"
    assert entries <= LIMITS.entries_max, case.name
    assert size <= LIMITS.bytes_max + (64 << 10), case.name


def _check_one(case: Case, place: str, status: os.stat_result) -> None:
    mode, layer = status.st_mode, case.kind == "layer"
    about = f"{case.name}: {stat.filemode(mode)}"
    assert max(status.st_uid, status.st_gid) <= 65_535, about
    assert not stat.S_ISBLK(mode), about
    assert not stat.S_ISSOCK(mode), about
    assert not stat.S_ISCHR(mode) or (layer and status.st_rdev == 0), about
    assert layer or not stat.S_ISFIFO(mode), about
    assert layer or not stat.S_IMODE(mode) & 0o6000, about
    allowed = {"security.capability"}
    names = {name for name in os.listxattr(place, follow_symlinks=False) if not name.startswith("user.")}
    assert names <= (allowed if layer else set()), about
    assert not any(name.startswith("user.overlay") for name in os.listxattr(place, follow_symlinks=False)), about


def _make_canary(canary: Path) -> None:
    (canary / "directory").mkdir(parents=True)
    (canary / "file").write_text("untouched")
    (canary / "directory/file").write_text("untouched too")
    (canary / "link").symlink_to("file")


def _snapshot(root: Path) -> list[object]:
    found: list[object] = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), _identity(status), status.st_nlink, content))
    return found


def _host() -> list[object]:
    """What identifies each file of the host; None for one that it does not have, and must not have afterwards."""
    return [_identity(os.lstat(path)) if os.path.lexists(path) else None for path in HOST_FILES]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns
