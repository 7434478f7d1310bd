"""What a runtime reads as its configuration, whenever it looks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells.garden import configuration

LONG = b"x" * 300_000


@pytest.mark.parametrize("text", [b"{}", LONG])
def test_whoever_waits_at_the_pipe_and_whoever_comes_later_read_the_same(tmp_path: Path, text: bytes) -> None:
    pipe = configuration.pipe(tmp_path)
    waiting = os.open(tmp_path / configuration.NAME, os.O_RDONLY)
    pipe.give(text)
    pipe.close()
    with open(waiting, "rb") as reader:
        assert reader.read() == text
    assert (tmp_path / configuration.NAME).read_bytes() == text
    assert os.listdir(tmp_path) == [configuration.NAME]


def test_whoever_opens_it_does_not_wait_for_anybody_to_write(tmp_path: Path) -> None:
    pipe = configuration.pipe(tmp_path)
    os.close(os.open(tmp_path / configuration.NAME, os.O_RDONLY))
    pipe.close()


@pytest.mark.parametrize("given", [False, True])
def test_whoever_waits_and_whoever_comes_later_is_refused(tmp_path: Path, given: bool) -> None:
    """Also when it was there as a file already."""
    pipe = configuration.pipe(tmp_path)
    waiting = os.open(tmp_path / configuration.NAME, os.O_RDONLY)
    if given:
        configuration.write(tmp_path, b"{}")
    pipe.refuse()
    assert os.read(waiting, 100) == configuration.NOTHING
    assert os.listdir(tmp_path) == []
    os.close(waiting)
    pipe.close()


def test_without_an_owner_it_ends(tmp_path: Path) -> None:
    """A runtime that waits when its cell is killed reads nothing, and gives up by itself."""
    pipe = configuration.pipe(tmp_path)
    waiting = os.open(tmp_path / configuration.NAME, os.O_RDONLY)
    pipe.close()
    with open(waiting, "rb") as reader:
        assert reader.read() == b""


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    configuration.pipe(tmp_path).close()
    assert (tmp_path / configuration.NAME).stat().st_mode & 0o777 == configuration.MODE
    configuration.write(tmp_path, b"{}")
    assert (tmp_path / configuration.NAME).stat().st_mode & 0o777 == configuration.MODE
