"""One frame a hop, honest times, and a budget that is never overspent in silence."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diego_py.call import ANSWER_MARGIN_MS, Budget, Call, Hop
from diego_py.chain import problem
from diego_py.errors import (
    BudgetSpent,
    DesireFailed,
    DiegoError,
    Frame,
    GardenFailed,
    InternalError,
    MountFailed,
    NoCellFits,
    Outcome,
    PlacementFailed,
    RepFailed,
    Step,
)
from tests.unit.diego_py.service.hand_clock import BEGAN, HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def call(clock: HandClock) -> Call:
    return Call.begin(clock, 10_000, "request-1")


def here(call: Call) -> Hop:
    assert call.here is not None
    return call.here


def frame_of(error: DiegoError) -> Frame:
    assert error.frame is not None
    return error.frame


def failure_of(work: Callable[[], object]) -> DiegoError:
    with pytest.raises(DiegoError) as caught:
        work()
    return caught.value


def test_an_own_error_gets_the_frame_of_its_hop(call: Call, clock: HandClock) -> None:
    def work() -> None:
        with call.hop("garden", "cell-1", "create web", GardenFailed, attempt=2) as inner:
            clock.pass_ms(30)
            with inner.step("mount"):
                clock.pass_ms(12)
            raise MountFailed("mount overlay")

    error = failure_of(work)
    assert type(error) is MountFailed
    assert error.__cause__ is None
    assert error.frame == Frame(
        hop="garden",
        id="cell-1",
        op="create web",
        code="garden.mount_failed",
        detail="mount overlay",
        status=500,
        started_at="2026-01-02T03:04:05.000Z",
        elapsed_ms=42.0,
        self_ms=42.0,
        attempt=2,
        steps=(Step("mount", 12.0),),
    )
    assert clock.now() > BEGAN


def test_an_error_from_below_becomes_the_cause(call: Call, clock: HandClock) -> None:
    def work() -> None:
        with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as bbs:
            clock.pass_ms(5)
            with bbs.hop("auction", "bbs-1", "place web/0", PlacementFailed) as auction:
                clock.pass_ms(7)
                with auction.hop("rep", "cell-1", "run_instance", RepFailed):
                    clock.pass_ms(100)
                    raise MountFailed("mount overlay")

    error = failure_of(work)
    assert [type(link) for link in error.links()] == [DesireFailed, PlacementFailed, MountFailed]
    assert [frame_of(link).hop for link in error.links()] == ["bbs", "auction", "rep"]
    assert [frame_of(link).elapsed_ms for link in error.links()] == [112, 107, 100]
    assert [frame_of(link).self_ms for link in error.links()] == [5, 7, 100]
    assert error.message == "desire_lrp"


def test_what_wraps_a_framed_error_inside_a_hop_is_the_hops_own(call: Call) -> None:
    def work() -> None:
        with call.hop("auction", "bbs-1", "place web/0", PlacementFailed) as auction:
            try:
                with auction.hop("rep", "cell-1", "run_instance", RepFailed):
                    raise RepFailed("run it")
            except RepFailed as error:
                raise NoCellFits("none is left") from error

    error = failure_of(work)
    assert [type(link) for link in error.links()] == [NoCellFits, RepFailed]
    assert [frame_of(link).hop for link in error.links()] == ["auction", "rep"]


@pytest.mark.parametrize("defect", [ValueError("secret words"), ExceptionGroup("group", [KeyError("k")])])
def test_a_defect_becomes_an_internal_error(call: Call, defect: Exception) -> None:
    def work() -> None:
        with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed):
            raise defect

    error = failure_of(work)
    assert type(error) is InternalError
    assert error.__cause__ is defect
    assert error.outcome is Outcome.UNKNOWN
    assert error.message == f"desire_lrp: unexpected {type(defect).__name__}"
    assert frame_of(error).hop == "bbs"


def test_cancellation_is_no_failure(call: Call) -> None:
    with pytest.raises(asyncio.CancelledError), call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
        raise asyncio.CancelledError
    assert here(inner).elapsed_ms is not None


def test_an_error_with_a_finished_document_passes_unchanged(call: Call) -> None:
    finished = DesireFailed("desire web")

    def work() -> None:
        with (
            call.hop("bbs", "bbs-1", "desire_lrp", RepFailed),
            call.hop("bbs", "bbs-1", "inner", RepFailed) as inner,
        ):
            inner.framed(finished)
            finished.problem = problem(finished, inner)
            raise finished

    error = failure_of(work)
    assert error is finished
    assert frame_of(error).op == "inner"


def test_an_error_rebuilt_from_a_document_gets_a_frame_more(call: Call) -> None:
    rebuilt = RepFailed("run it")
    rebuilt.frame = Frame("rep", "cell-1", "run_instance", "rep.work_failed")
    rebuilt.problem = {"code": "rep.work_failed"}

    def work() -> None:
        with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed):
            raise rebuilt

    error = failure_of(work)
    assert type(error) is DesireFailed
    assert error.__cause__ is rebuilt
    assert error.problem is None


def test_framed_gives_the_frame_as_it_stands(call: Call, clock: HandClock) -> None:
    with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as bbs:
        clock.pass_ms(3)
        with bbs.hop("rep", "cell-1", "run_instance", RepFailed):
            clock.pass_ms(4)
            frame = frame_of(bbs.framed(DesireFailed("desire web")))
    assert (frame.hop, frame.elapsed_ms, frame.self_ms) == ("bbs", 7.0, 3.0)
    assert call.framed(DesireFailed("outside of any hop")).frame is None


def test_steps_are_timed_also_when_they_fail(call: Call, clock: HandClock) -> None:
    def mount(inner: Call) -> None:
        with inner.step("mount"):
            clock.pass_ms(1.234)
            raise MountFailed("mount overlay")

    with call.hop("garden", "cell-1", "create", GardenFailed) as inner:
        failure_of(lambda: mount(inner))
        with inner.step("again"):
            clock.pass_ms(2)
    assert here(inner).steps == [Step("mount", 1.23), Step("again", 2.0)]
    with call.step("without a hop"):
        clock.pass_ms(1)


def test_parallel_hops_below_count_once(call: Call, clock: HandClock) -> None:
    with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as bbs:
        clock.pass_ms(5)
        first = bbs.hop("rep", "cell-1", "run_instance", RepFailed)
        second = bbs.hop("rep", "cell-2", "run_instance", RepFailed)
        first.__enter__()
        clock.pass_ms(10)
        second.__enter__()
        clock.pass_ms(20)
        first.__exit__(None, None, None)
        clock.pass_ms(30)
        second.__exit__(None, None, None)
        clock.pass_ms(2)
    assert here(bbs).elapsed_ms == pytest.approx(67)
    assert here(bbs).self_ms == pytest.approx(7)
    assert [hop.id for hop in here(bbs).critical_path()] == ["bbs-1", "cell-2"]


intervals = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)).map(sorted), max_size=6)


@given(intervals, st.integers(0, 600))
def test_own_time_is_the_time_in_which_nothing_below_ran(children: list[list[int]], total_ms: int) -> None:
    clock = HandClock()
    hop = Hop("bbs", "bbs-1", "op", 0.0, clock.now(), elapsed_ms=total_ms)
    for begin, end in children:
        hop.children.append(Hop("rep", "c", "op", begin / 1000, clock.now(), elapsed_ms=end - begin))
    busy = {ms for begin, end in children for ms in range(begin, end) if ms < total_ms}
    assert hop.self_ms == pytest.approx(total_ms - len(busy), abs=1e-6)
    frame = hop.frame(RepFailed("x"), now_s=99.0)
    assert (frame.elapsed_ms, frame.self_ms) == (total_ms, pytest.approx(total_ms - len(busy), abs=0.01))


def test_the_critical_path_follows_sequential_hops(call: Call, clock: HandClock) -> None:
    with call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as bbs:
        for cell in ("cell-1", "cell-2"):
            with bbs.hop("rep", cell, "run_instance", RepFailed) as rep:
                clock.pass_ms(10)
                with rep.hop("garden", cell, "create", GardenFailed):
                    clock.pass_ms(10)
    path = [(hop.name, hop.id) for hop in here(bbs).critical_path()]
    assert path == [("bbs", "bbs-1"), ("rep", "cell-1"), ("garden", "cell-1"), ("rep", "cell-2"), ("garden", "cell-2")]
    assert sum(hop.self_ms for hop in here(bbs).critical_path()) == pytest.approx(here(bbs).elapsed_ms)


async def test_a_spent_budget_fails_at_once(clock: HandClock) -> None:
    call = Call.begin(clock, ANSWER_MARGIN_MS)
    entered = False
    with pytest.raises(BudgetSpent) as caught:
        async with call.within_budget("create"):
            entered = True
    assert not entered
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert caught.value.message == "create: no time left to begin"


async def test_a_budget_that_runs_out_inside_is_told_with_its_outcome(clock: HandClock) -> None:
    call = Call.begin(clock, ANSWER_MARGIN_MS + 1)
    with pytest.raises(BudgetSpent) as caught:
        async with call.within_budget("create", Outcome.PARTIAL):
            await asyncio.Event().wait()
    assert caught.value.outcome is Outcome.PARTIAL
    assert caught.value.message == "create: not done within 51 ms"
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_foreign_timeout_is_not_ours(call: Call) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with call.within_budget("create"):
            raise TimeoutError("somebody else's")
    assert not isinstance(caught.value, DiegoError)


async def test_what_ends_in_time_is_left_alone(call: Call) -> None:
    async with call.within_budget("create"):
        pass
    with pytest.raises(MountFailed):
        async with call.within_budget("create"):
            raise MountFailed("mount overlay")


async def test_a_future_is_waited_for_within_the_budget(clock: HandClock) -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "done")
    assert await Call.begin(clock, 10_000).result_of(future, "create") == "done"
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(BudgetSpent, match="create: not done within 51 ms") as caught:
        await Call.begin(clock, ANSWER_MARGIN_MS + 1).result_of(never, "create", Outcome.PARTIAL)
    assert caught.value.outcome is Outcome.PARTIAL
    assert isinstance(caught.value.__cause__, TimeoutError)
    with pytest.raises(BudgetSpent, match="create: no time left to begin") as caught:
        await Call.begin(clock, ANSWER_MARGIN_MS).result_of(never, "create")
    assert caught.value.outcome is Outcome.NOT_STARTED


def test_the_budget_is_relative_to_the_clock(clock: HandClock) -> None:
    call = Call.begin(clock, 2_000)
    clock.pass_ms(1_500)
    assert call.remaining_ms() == pytest.approx(500)
    clock.pass_ms(1_000)
    assert call.remaining_ms() == pytest.approx(-500)
    again = call.with_budget(3_000)
    assert again.remaining_ms() == pytest.approx(3_000)
    assert again.request_id == call.request_id
    assert Budget.of(250, clock).total_ms == 250


def test_a_call_that_begins_here_makes_its_ids(clock: HandClock) -> None:
    call = Call.begin(clock, 1)
    assert call.request_id == call.trace_id
    assert len(call.trace_id) == 32
    assert Call.begin(clock, 1, "mine").request_id == "mine"
