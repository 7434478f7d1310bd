"""Records survive as they were, and what is torn reads as half-built."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve

from cells.garden import kernel
from cells.garden.depot import Depot, Record
from cells.garden.spec import DiskUsage, Exit, Limits, PortForward

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECORD = Record(
    handle="a",
    phase="creating",
    id_slot=3,
    address_number=4,
    ports=(PortForward(80, 61001),),
    limits=Limits(memory_bytes=1),
    properties={"owner": "me"},
    created_at=NOW.isoformat(),
    rootfs="preloaded:x",
    volume="/nowhere/a",
)
EXIT = Exit(137, 9, True, ("last",), {"oom_kill": 1}, NOW, DiskUsage(1, 2, 3, None))


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    made = Depot(tmp_path / "state", logs_kept_max=2)
    made.prepare()
    return made


def test_round_trip(depot: Depot) -> None:
    depot.make(RECORD)
    assert depot.load("a") == RECORD
    ended = evolve(RECORD, phase="running", exit=EXIT)
    depot.save(ended)
    assert depot.load("a") == ended
    assert depot.handles() == ["a"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_many_times_longer_and_shorter(depot: Depot, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:

        def refused(one: str, other: str) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), one)

        monkeypatch.setattr(kernel, "exchange", refused)
    depot.make(RECORD)
    for length in (3000, 0, 5000, 1):
        saved = evolve(RECORD, properties={"owner": "x" * length})
        depot.save(saved)
        assert depot.load("a") == saved


@pytest.mark.parametrize("text", ["", "{", "{}", '{"handle": "b"}', "null"])
def test_torn_records_read_as_none(depot: Depot, text: str) -> None:
    depot.make(RECORD).state.write_text(text)
    assert depot.load("a") is None


def test_a_record_of_another_container_is_none(depot: Depot) -> None:
    depot.make(RECORD).state.write_bytes(depot.directory("a", "").state.read_bytes().replace(b'"a"', b'"b"'))
    assert depot.load("a") is None


def test_nothing_there(depot: Depot) -> None:
    assert depot.load("a") is None
    depot.remove("a")
    assert depot.handles() == []


def test_a_handle_is_made_once(depot: Depot) -> None:
    depot.make(RECORD)
    with pytest.raises(FileExistsError):
        depot.make(RECORD)


def test_containers_may_pass_and_others_may_not_read(depot: Depot) -> None:
    directory = depot.make(RECORD)
    for path in (depot.root, depot.containers, directory.path, directory.rootfs):
        assert path.stat().st_mode & 0o777 == 0o711
    for path in (directory.bundle, depot.logs, depot.runtime):
        assert path.stat().st_mode & 0o777 == 0o700
    assert directory.state.stat().st_mode & 0o777 == 0o600


def test_removal_keeps_the_log_and_a_new_one_begins_afresh(depot: Depot) -> None:
    directory = depot.make(RECORD)
    directory.log.write_text("old")
    depot.remove("a")
    assert directory.log.exists()
    depot.make(RECORD)
    assert not directory.log.exists()


def test_a_log_keeps_its_rate_until_it_goes(depot: Depot) -> None:
    depot.make(evolve(RECORD, limits=Limits(log_bytes_per_second=9)))
    depot.log("a").write_text("")
    depot.remove("a")
    assert depot.log_rate("a") == 9
    for other in "bcd":
        depot.make(evolve(RECORD, handle=other)).log.write_text("")
        depot.remove(other)
    assert (depot.log_rate("a"), list(depot.rates.iterdir())) == (None, [])
    depot.make(evolve(RECORD, limits=Limits(log_bytes_per_second=9)))
    depot.remove("a")
    depot.make(RECORD)
    assert depot.log_rate("a") is None


def logs(depot: Depot) -> list[str]:
    return sorted(path.name for path in depot.logs.iterdir())


def test_oldest_logs_of_gone_containers_make_room(depot: Depot) -> None:
    depot.make(RECORD).log.write_text("")
    for age, handle in enumerate(("newest", "middle", "oldest")):
        path = depot.log(handle)
        path.write_text("")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    depot.take_up_logs()
    assert logs(depot) == ["a.log", "middle.log", "newest.log"]
    depot.remove("a")
    assert logs(depot) == ["a.log", "newest.log"]
    depot.make(evolve(RECORD, handle="newest")).log.write_text("")
    for handle in ("b", "c"):
        depot.make(evolve(RECORD, handle=handle)).log.write_text("")
        depot.remove(handle)
    assert logs(depot) == ["b.log", "c.log", "newest.log"], "it lives again"


def test_what_is_said_of_a_log_that_never_came_goes_with_its_container(depot: Depot) -> None:
    told = evolve(RECORD, limits=Limits(log_bytes_per_second=9), log_source="APP")
    depot.make(told)
    depot.remove("a")
    assert [*depot.rates.iterdir(), *depot.sources.iterdir()] == []
    (depot.sources / "b").write_text("APP")
    depot.take_up_logs()
    assert list(depot.sources.iterdir()) == []
