"""Choosing and making a working directory below a root that may have links to anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells.garden.directories import chosen, make_missing
from cells.garden.users import Identity
from diego_py.errors import WorkingDirectoryInvalid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "srv").mkdir(parents=True)
    (made / "file").write_text("")
    return made


def make(root: Path, path: str) -> None:
    make_missing(str(root), path, os.getuid(), os.getgid())


def test_made_with_all_above_it(root: Path) -> None:
    make(root, "/srv/./a//b/c")
    assert (root / "srv/a/b/c").is_dir()
    assert (root / "srv/a").stat().st_mode & 0o777 == 0o755 & ~_umask()
    make(root, "/srv/a/b/c")


def test_links_lead_nowhere_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "up").symlink_to("../outside")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "inside").symlink_to("/srv")
    for path in ("/up/x", "/absolute/x", "/inside/x", "/../outside/x"):
        make(root, path)
    assert os.listdir(tmp_path / "outside") == []
    assert (root / "srv/x").is_dir()


@pytest.mark.parametrize("path", ["/file", "/file/x", "/loop/x"])
def test_what_cannot_be_is_left_to_the_runtime(root: Path, path: str) -> None:
    (root / "loop").symlink_to("loop")
    before = sorted(os.listdir(root))
    make(root, path)
    assert sorted(os.listdir(root)) == before


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def who(home: str) -> Identity:
    return Identity(0, 0, (0,), "root", home)


def test_a_process_starts_as_said_or_at_home(root: Path) -> None:
    (root / "home").mkdir()
    (root / "elsewhere").symlink_to("/srv/processes")
    assert chosen(str(root), "/srv", who("/home")) == "/srv"
    assert chosen(str(root), None, who("/home")) == "/home"
    assert chosen(str(root), None, who("/none")) == "/"
    for path in ("/processes/proc", "/srv/proc", "/elsewhere/proc", "/none/at/all", "/file/x", "relative/proc"):
        assert chosen(str(root), path, who("/")) == path


@pytest.mark.parametrize(
    "path",
    [
        "/proc",
        "//proc/self",
        "proc/self/fd/7",
        "/srv/../proc/x",
        "/./proc",
        "/link",
        "/deep/er/link",
        "/again/x",
        "/loop",
    ],
)
def test_no_process_starts_in_proc(root: Path, path: str) -> None:
    """Not even by a link that leads nowhere before /proc is mounted, nor by a home in the image's own /proc."""
    (root / "proc/self/fd/7").mkdir(parents=True)
    (root / "deep/er").mkdir(parents=True)
    (root / "link").symlink_to("/proc/self/fd/8")
    (root / "deep/er/link").symlink_to("../../../../proc/self")
    (root / "again").symlink_to("srv/../link")
    (root / "loop").symlink_to("loop")
    with pytest.raises(WorkingDirectoryInvalid):
        chosen(str(root), path, who("/"))
    with pytest.raises(WorkingDirectoryInvalid):
        chosen(str(root), None, who("/proc/self/fd/7"))
