"""All cells together say no more than wanted, and none that says what it shall is taken for lost."""

from hypothesis import given
from hypothesis import strategies as st

from bbs.pace import Pace, Term
from cells.rep.sync import JITTER


def test_few_cells_keep_their_interval_and_their_presence() -> None:
    assert Pace(cells=lambda: 2_500).term() == Term(ttl_s=15.0, pause_s=5.0)


def test_more_cells_report_less_often_and_are_missed_later() -> None:
    assert Pace(cells=lambda: 7_500).term() == Term(ttl_s=45.0, pause_s=15.0)


@given(
    cells=st.integers(0, 100_000),
    per_second_max=st.floats(1, 10_000),
    ttl_s=st.floats(1, 60),
    share=st.floats(0.01, 0.34),
)
def test_a_presence_outlasts_two_pauses_and_all_say_no_more_than_wanted(
    cells: int, per_second_max: float, ttl_s: float, share: float
) -> None:
    term = Pace(ttl_s, per_second_max, lambda: cells).term()
    pause_s = max(ttl_s * share, term.pause_s)
    assert term.ttl_s >= 2 * pause_s * (1 + JITTER)
    assert cells / pause_s <= per_second_max * (1 + 1e-9)
