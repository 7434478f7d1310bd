"""Quota groups that cannot go yet are tried again, by whichever thread removes the next volume."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cells.garden.quota import kernel
from cells.garden.quota.btrfs import STALE_AT_ONCE, BtrfsQuota

VOLUMES = 200
THREADS = 8
BUSY_FIRST = 3
"""How often the kernel says of each group that it is busy."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each group's removal was asked for; the number of a volume is its name."""
    asked: Counter[int] = Counter()
    turn = threading.Lock()

    def remove(root: str, number: int) -> None:
        with turn:
            asked[number] += 1
            if asked[number] <= BUSY_FIRST:
                raise OSError(errno.EBUSY, "busy", root)

    monkeypatch.setattr(kernel, "subvolume_id", lambda path: int(Path(path).name))
    monkeypatch.setattr(kernel, "destroy_subvolume", lambda path: None)
    monkeypatch.setattr(kernel, "remove_qgroup", remove)
    return asked


def test_many_threads_lose_no_group_and_fail_on_none(asked: Counter[int], tmp_path: Path) -> None:
    quota = BtrfsQuota()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: quota.remove(tmp_path / str(number)), range(VOLUMES)))
    for number in range(VOLUMES, 3 * VOLUMES):
        quota.remove(tmp_path / str(number))
    assert all(asked[number] == BUSY_FIRST + 1 for number in range(VOLUMES))


def test_a_removal_asks_for_few_groups(asked: Counter[int], tmp_path: Path) -> None:
    quota = BtrfsQuota()
    for number in range(VOLUMES):
        before = asked.total()
        quota.remove(tmp_path / str(number))
        assert asked.total() - before <= STALE_AT_ONCE


def test_what_the_kernel_refuses_otherwise_is_told(monkeypatch: pytest.MonkeyPatch, asked: Counter[int]) -> None:
    def refuse(root: str, number: int) -> None:
        raise OSError(errno.EPERM, "no", root)

    monkeypatch.setattr(kernel, "remove_qgroup", refuse)
    with pytest.raises(PermissionError):
        BtrfsQuota().remove(Path("/volumes/7"))
