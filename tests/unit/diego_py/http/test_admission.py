"""Limits follow what the process keeps up with: found in a model of an event loop, where all time is reckoned."""

import asyncio

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from diego_py.http.admission import ALWAYS, LAG_MAX_S, LOOK_S, LOOKS, Admission, Gate, LoopLag

LATE, IN_TIME = 2 * LAG_MAX_S, LAG_MAX_S / 2


@given(st.integers(ALWAYS, 600), st.lists(st.tuples(st.integers(0, 700), st.floats(0, 1))))
def test_a_limit_is_never_below_what_is_always_let_in_nor_above_the_most(
    most: int, looks: list[tuple[int, float]]
) -> None:
    gate = Gate(most)
    for under_way, lag_s in looks:
        gate.under_way = under_way
        assert gate.is_full() is (under_way >= gate.limit)
        gate.looked(lag_s)
        assert ALWAYS <= gate.limit <= most


def test_it_falls_with_a_late_loop_and_rises_again_only_when_it_is_reached() -> None:
    gate = Gate(512)
    gate.under_way = 100
    gate.looked(LATE)
    assert gate.limit == 70
    gate.looked(IN_TIME)
    assert gate.limit == 70, "nobody was refused"
    assert gate.is_full()
    gate.looked(IN_TIME)
    assert gate.limit == 77
    for _ in range(30):
        gate.under_way = gate.limit
        assert gate.is_full()
        gate.looked(IN_TIME)
    assert gate.limit == 512


def test_few_requests_are_not_to_blame_for_a_late_loop() -> None:
    gate = Gate(512)
    gate.under_way = ALWAYS
    gate.looked(LATE)
    assert gate.limit == 512


@define
class Model:
    """An event loop that makes one step of each request in every turn, while others come whatever becomes of them."""

    gate: Gate
    step_s: float = 0.000_4
    steps: int = 10
    refusal_s: float = 0.000_3
    done: int = 0
    waits_s: list[float] = field(factory=list)
    """How long refusals waited for the loop."""
    _under_way: list[int] = field(factory=list)
    _now_s: float = 0.0
    _come_s: float = 0.0
    _lags_s: list[float] = field(factory=list)
    _look_s: float = LOOK_S

    @property
    def capacity(self) -> float:
        return 1 / (self.step_s * self.steps)

    def run(self, rate: float, until_s: float) -> None:
        while self._now_s < until_s:
            began_s = self._now_s
            self._now_s += 0.000_05
            while self._come_s <= began_s:
                self._arrive(began_s - self._come_s)
                self._come_s += 1 / rate
            self._now_s += self.step_s * len(self._under_way)
            left = [steps - 1 for steps in self._under_way if steps > 1]
            self.done += len(self._under_way) - len(left)
            self._under_way = left
            self.gate.under_way = len(left)
            self._look()

    def _arrive(self, waited_s: float) -> None:
        if self.gate.is_full():
            self._now_s += self.refusal_s
            self.waits_s.append(waited_s)
        else:
            self._under_way.append(self.steps)
            self.gate.under_way += 1

    def _look(self) -> None:
        if self._now_s < self._look_s:
            return
        self._lags_s.append(self._now_s - self._look_s)
        self._look_s = self._now_s + LOOK_S
        if len(self._lags_s) == LOOKS:
            self.gate.looked(sorted(self._lags_s)[LOOKS // 2])
            self._lags_s.clear()


@pytest.mark.parametrize("step_s", [0.000_2, 0.000_4, 0.001])
def test_at_three_times_the_capacity_most_of_it_is_done_and_the_rest_is_refused_at_once(step_s: float) -> None:
    model = Model(Gate(512), step_s=step_s, refusal_s=step_s / 2)
    model.run(3 * model.capacity, 5.0)
    before, refused = model.done, len(model.waits_s)
    model.run(3 * model.capacity, 35.0)
    assert model.done - before >= 0.8 * 30 * model.capacity
    waits_s = sorted(model.waits_s[refused:])
    assert waits_s[len(waits_s) * 99 // 100] <= 0.05


def test_after_the_overload_nobody_is_refused() -> None:
    model = Model(Gate(512))
    model.run(3 * model.capacity, 10.0)
    model.run(0.8 * model.capacity, 12.0)
    refused = len(model.waits_s)
    model.run(0.8 * model.capacity, 20.0)
    assert len(model.waits_s) == refused


def test_without_overload_the_limit_is_not_touched() -> None:
    model = Model(Gate(512))
    model.run(0.9 * model.capacity, 20.0)
    assert (model.gate.limit, model.waits_s) == (512, [])


async def test_work_counts_until_it_is_done_whoever_waits_for_it() -> None:
    admission, go_on = Admission(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        admission.outlives(group.create_task(go_on.wait()))
        group.create_task(admission.changing(go_on.wait()))
        await asyncio.sleep(0)
        assert (admission.changes.under_way, admission.reads.under_way) == (2, 0)
        go_on.set()
    await asyncio.sleep(0)
    assert admission.changes.under_way == 0


async def test_the_lag_of_a_blocked_loop_lowers_the_limit() -> None:
    loop, admission = asyncio.get_running_loop(), Admission()
    watch = LoopLag(admission)
    admission.changes.under_way = 100
    await watch.start()
    began_s = loop.time()
    while admission.changes.limit == 512 and loop.time() < began_s + 30:
        while loop.time() < began_s + 0.1:
            pass  # a step of work that takes too long
        began_s = loop.time()
        await asyncio.sleep(0)
    await watch.stop()
    assert ALWAYS <= admission.changes.limit <= 70
    assert admission.reads.limit == 512
