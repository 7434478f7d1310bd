"""Quota groups that cannot go yet are tried again, by whichever thread removes the next volume."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import define, field

from cells.garden.quota import kernel
from cells.garden.quota.btrfs import STALE_AT_ONCE, BtrfsQuota

VOLUMES = 200
THREADS = 8
BUSY_FOR = 20
"""The kernel says of a group that it is busy until so many more volumes have gone."""


@define
class Groups:
    """Stands in for the kernel; the number of a volume is its name."""

    asked: int = 0
    gone: Counter[int] = field(factory=Counter)
    """How often each group was removed."""
    _gone_after: dict[int, int] = field(factory=dict)
    _turn: threading.Lock = field(factory=threading.Lock)

    def destroy(self, path: Path) -> None:
        with self._turn:
            self._gone_after[int(path.name)] = len(self._gone_after) + BUSY_FOR

    def remove(self, root: str, number: int) -> None:
        with self._turn:
            self.asked += 1
            if self._gone_after[number] > len(self._gone_after):
                raise OSError(errno.EBUSY, "busy", root)
            self.gone[number] += 1


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    made = Groups()
    monkeypatch.setattr(kernel, "subvolume_id", lambda path: int(Path(path).name))
    monkeypatch.setattr(kernel, "destroy_subvolume", made.destroy)
    monkeypatch.setattr(kernel, "remove_qgroup", made.remove)
    return made


def test_many_threads_lose_no_group_and_fail_on_none(groups: Groups, tmp_path: Path) -> None:
    quota = BtrfsQuota()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: quota.remove(tmp_path / str(number)), range(VOLUMES)))
    for number in range(VOLUMES, 3 * VOLUMES):
        quota.remove(tmp_path / str(number))
    assert all(groups.gone[number] == 1 for number in range(VOLUMES))


def test_a_removal_asks_for_few_groups_and_for_one_while_all_are_busy(groups: Groups, tmp_path: Path) -> None:
    quota = BtrfsQuota()
    for number in range(VOLUMES):
        before = groups.asked
        quota.remove(tmp_path / str(number))
        assert groups.asked - before <= (1 if number < BUSY_FOR else STALE_AT_ONCE)
    assert VOLUMES - groups.gone.total() <= 3 * BUSY_FOR, "groups gather"


def test_a_sweep_asks_for_all_whichever_is_busy(
    groups: Groups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "0").mkdir()
    for number in range(1, VOLUMES):
        (tmp_path / f"0_{number}").mkdir()
        groups.destroy(Path(str(number)))
    monkeypatch.setattr(BtrfsQuota, "_groups", lambda self, top: tmp_path)
    quota = BtrfsQuota()
    quota._stale.append(VOLUMES - 1)  # The last one that went, and busy, is the first in turn.
    quota.sweep(tmp_path / "0", [])
    assert {*range(1, VOLUMES - BUSY_FOR)} <= {*groups.gone}


def test_what_the_kernel_refuses_otherwise_is_told(monkeypatch: pytest.MonkeyPatch, groups: Groups) -> None:
    def refuse(root: str, number: int) -> None:
        raise OSError(errno.EPERM, "no", root)

    monkeypatch.setattr(kernel, "remove_qgroup", refuse)
    with pytest.raises(PermissionError):
        BtrfsQuota().remove(Path("/volumes/7"))
