"""A process that cannot be looked at is not taken for dead."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from cells.garden.processes import Process, identify, is_alive, kill, open_pidfd


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken: list[int] = []
    try:
        _take_all(taken)
        for _ in range(count):
            os.close(taken.pop())
        yield
        # What was left is left: nothing that failed has kept any.
        taken += [os.dup(0) for _ in range(count)]
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _take_all(taken: list[int]) -> None:
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("look", [open_pidfd, kill])
def test_without_descriptors_nobody_is_said_to_be_dead(look: Callable[[Process], object], left: int) -> None:
    """One is enough to open it, and not to see what was opened."""
    another = identify(os.getppid())
    with descriptors_left(left), pytest.raises(OSError, match="Too many open files"):
        look(another)


def test_nor_to_have_ended() -> None:
    another = identify(os.getppid())
    with descriptors_left(0), pytest.raises(OSError, match="Too many open files"):
        is_alive(another)
    assert is_alive(another)
