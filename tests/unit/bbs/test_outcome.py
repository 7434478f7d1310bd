"""One document a failed instance, closed with our own frame; the first one speaks for all."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bbs.outcome import InstanceOutcome, is_crash, outcome_of_all, subject, tell
from diego_py.call import Call
from diego_py.chain import rebuild
from diego_py.errors import (
    DesireFailed,
    DiegoError,
    ExecNotFound,
    NoCellFits,
    Outcome,
    PlacementFailed,
    RepFailed,
    registry,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid
from diego_py.models.workload import ModificationTag
from tests.unit.diego_py.service.hand_clock import HandClock

CRASHES = {
    *("app.exited", "app.out_of_memory", "app.disk_exceeded", "app.pids_exceeded"),
    *("app.never_healthy", "app.became_unhealthy", "app.action_timeout", "app.codependent_exited"),
    *("app.result_missing", "app.result_too_large"),
}


def row(index: int, state: ActualLRPState = ActualLRPState.UNCLAIMED) -> ActualLRP:
    running = state is ActualLRPState.RUNNING
    return ActualLRP(
        process_guid=ProcessGuid("web"),
        index=index,
        domain=Domain("d"),
        state=state,
        instance_guid=InstanceGuid(f"web-{index}"),
        cell_id=CellId("cell-1") if running else None,
        net_info=NetInfo(address="10.0.0.1") if running else None,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        modification_tag=ModificationTag(epoch="e", index=0),
    )


def failed(index: int, error: DiegoError) -> InstanceOutcome:
    return InstanceOutcome(row(index), error, CellId("cell-1"))


def started(index: int) -> InstanceOutcome:
    return InstanceOutcome(row(index, ActualLRPState.RUNNING))


def below(call: Call, error: DiegoError) -> DiegoError:
    """`error` as it arrives from the auction."""
    with pytest.raises(DiegoError) as caught, call.hop("auction", "bbs-1", "place", PlacementFailed):
        raise error
    return caught.value


@pytest.fixture
def call() -> Call:
    call = Call.begin(HandClock(), 1_000)
    with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
        return inner


def members(document: Any) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(document.encode())
    return told


def test_every_failed_instance_has_a_document_and_the_first_lists_all(call: Call) -> None:
    first = below(call, RepFailed("run it", outcome=Outcome.ROLLED_BACK))
    second = below(call, NoCellFits("no room", outcome=Outcome.NOT_STARTED))
    told = tell(call, DesireFailed, "desire web", [started(0), failed(1, first), failed(2, second)])
    assert [failure.outcome.row.index for failure in told.failures] == [1, 2]
    assert told.error is told.failures[0].error
    documents = [members(failure.document) for failure in told.failures]
    assert [document["code"] for document in documents] == ["rep.work_failed", "auction.no_cell_fits"]
    assert [document["outcome"] for document in documents] == ["partial", "partial"]
    assert [[frame["hop"] for frame in document["chain"]] for document in documents] == [["bbs", "auction"]] * 2
    assert [document["subject"]["index"] for document in documents] == [1, 2]
    assert documents[0]["instances"] == [
        {"index": 0, "instance_guid": "web-0", "revision": 0, "state": "RUNNING", "cell_id": "cell-1"},
        {
            "index": 1,
            "instance_guid": "web-1",
            "revision": 0,
            "state": "FAILED",
            "code": "rep.work_failed",
            "detail": "run it",
        },
        {
            "index": 2,
            "instance_guid": "web-2",
            "revision": 0,
            "state": "FAILED",
            "code": "auction.no_cell_fits",
            "detail": "no room",
        },
    ]
    assert "instances" not in documents[1]
    assert [type(link) for link in rebuild(documents[0]).links()] == [DesireFailed, RepFailed]


@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.UNKNOWN, Outcome.RUNNING])
def test_without_a_success_the_outcome_is_that_of_the_instance(call: Call, outcome: Outcome) -> None:
    told = tell(call, DesireFailed, "desire web", [failed(0, below(call, RepFailed("x", outcome=outcome)))])
    document = members(told.failures[0].document)
    assert document["outcome"] == outcome
    assert "instances" not in document
    assert told.error.message == "desire web"
    assert not told.error.finished, "it is once its document is stored"


def test_nobody_knowing_the_outcome_means_that_nothing_was_started(call: Call) -> None:
    told = tell(call, DesireFailed, "desire web", [failed(0, below(call, ExecNotFound("x")))])
    assert told.failures[0].document.outcome == "not_started"


def test_the_commands_name_the_lrp(call: Call) -> None:
    told = tell(call, DesireFailed, "desire web", [failed(3, below(call, RepFailed("x")))])
    assert told.failures[0].document.next[0].run == "diego explain web"
    assert subject(row(3)) == {
        "kind": "lrp",
        "guid": "web",
        "index": 3,
        "instance_guid": "web-3",
        "domain": "d",
    }


@pytest.mark.parametrize("kind", registry().values(), ids=lambda kind: kind.code)
def test_only_the_apps_own_end_is_a_crash(call: Call, kind: type[DiegoError]) -> None:
    assert is_crash(below(call, kind("x"))) is (kind.code in CRASHES)


NOT_STARTED, ROLLED_BACK, UNKNOWN = Outcome.NOT_STARTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("attempts", "last", "told"),
    [
        ((ROLLED_BACK, None), None, ROLLED_BACK),
        ((UNKNOWN, NOT_STARTED), None, UNKNOWN),
        ((None,), UNKNOWN, UNKNOWN),
        ((UNKNOWN,), NOT_STARTED, UNKNOWN),
        ((Outcome.RUNNING,), None, Outcome.RUNNING),
        ((NOT_STARTED, None), None, NOT_STARTED),
    ],
)
def test_what_several_attempts_left(attempts: tuple[Outcome | None, ...], last: Outcome | None, told: Outcome) -> None:
    error = PlacementFailed("place web/0", outcome=last)
    assert outcome_of_all(error, [RepFailed("run it", outcome=outcome) for outcome in attempts]) is told
