"""Removal of trees that somebody made to be hard to remove."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cells.garden.quota import trees

DEPTH = 3000
"""Deeper than a path may be long, than Python recurses, and than there are descriptors."""


def deep(top: Path) -> None:
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)


def test_any_depth(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    deep(top)
    trees.remove(top)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_followed_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "inner/link").symlink_to("../../outside")
    (top / "inner/hard").hardlink_to(outside / "kept")
    os.mkfifo(top / "inner/fifo")
    trees.remove(top)
    assert not top.exists()
    assert (outside / "kept").read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
def test_what_nobody_may_change(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "fixed/inner").mkdir(parents=True)
    (top / "grows").mkdir()
    for name in ("fixed/file", "fixed/inner/file", "grows/file"):
        (top / name).write_text("x")
    os.mkfifo(top / "fixed/fifo")
    (top / "fixed/link").symlink_to("nowhere")
    fixed = [top / "fixed" / name for name in ("inner/file", "inner", "file", ".")]
    if subprocess.run(["chattr", "+i", *fixed], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    subprocess.run(["chattr", "+a", top / "grows/file", top / "grows"], check=True)
    trees.remove(top)
    assert not top.exists()


def test_a_removal_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in (".removed-0-1/a/b", ".removed-0-2", "a/b/c", "b"):
        (top / name).mkdir(parents=True)
        (top / name / "file").write_text("x")
    trees.remove(top)
    trees.remove(top)
    assert not top.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
def test_directories_that_nobody_may_enter(tmp_path: Path) -> None:
    """overlayfs leaves one of mode 0."""
    top = tmp_path / "top"
    (top / "work/inner").mkdir(parents=True)
    (top / "work").chmod(0)
    trees.remove(top)
    assert not top.exists()
