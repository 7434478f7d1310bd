"""Making a working directory below a root that may have links to anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells.garden.directories import make_missing


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
