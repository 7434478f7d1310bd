"""Programs in memory that nobody can change."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from cells.garden import sealed


def test_nobody_writes_what_is_in_memory() -> None:
    copied = sealed.in_memory("name", b"content", 0o111)
    try:
        assert stat.S_IMODE(os.fstat(copied).st_mode) == 0o111
        with open(sealed.path(copied), "rb") as file:
            assert file.read() == b"content"
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) == sealed.SEALS
        with open(sealed.path(copied), "r+b", buffering=0) as file, pytest.raises(PermissionError):
            file.write(b"x")
    finally:
        os.close(copied)


def test_nothing_stays_open_but_what_is_answered() -> None:
    before = os.listdir("/proc/self/fd")
    os.close(sealed.in_memory("name", b"content", 0o755))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("refusals", "sealed_in_the_end"), [(sealed.TRIES_MAX - 1, True), (sealed.TRIES_MAX, False)])
def test_a_kernel_that_is_busy_with_a_page_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, refusals: int, sealed_in_the_end: bool
) -> None:
    asked, seal = iter(range(refusals)), fcntl.fcntl

    def busy(*request: int) -> int:
        if next(asked, None) is not None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return seal(*request)

    monkeypatch.setattr(fcntl, "fcntl", busy)
    if sealed_in_the_end:
        os.close(sealed.in_memory("name", b"content", 0o755))
        return
    with pytest.raises(OSError, match="busy"):
        sealed.in_memory("name", b"content", 0o755)
