"""docs/states.md says of every pair of state and event what its table says, and of each word what it means."""

from __future__ import annotations

import runpy
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from diego_py.models.transitions import IllegalTransition, next_state

CHECKOUT = Path(__file__).resolve().parents[3]
GENERATED = runpy.run_path(str(CHECKOUT / "scripts" / "generate-docs"))
PAGE = (CHECKOUT / "docs" / "states.md").read_text()


def cells(title: str, state: StrEnum) -> list[str]:
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| **{state}** |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("table", GENERATED["TABLES"], ids=lambda table: table[0])
def test_every_pair_of_state_and_event(table: tuple[str, type[StrEnum], type[StrEnum], dict[Any, Any]]) -> None:
    title, states, events, moves = table
    for state, (event, told) in product(states, enumerate(events)):
        cell = cells(title, state)[event]
        if (state, told) in moves:
            assert cell == next_state(moves, state, told)
            continue
        assert cell == "·"
        with pytest.raises(IllegalTransition):
            next_state(moves, state, told)


@pytest.mark.parametrize("table", GENERATED["TABLES"], ids=lambda table: table[0])
def test_every_state_can_be_come_to_and_every_word_has_a_meaning(table: tuple[Any, Any, Any, dict[Any, Any]]) -> None:
    title, states, events, moves = table
    first = next(iter(states))
    assert {first, *moves.values()} == set(states)
    assert {event for _, event in moves} == set(events)
    section = PAGE.split(f"## {title}\n", 1)[1]
    for kind in (states, events):
        assert all(GENERATED["meanings"](kind).values())
        assert all(f"| {word} | {meaning} |" in section for word, meaning in GENERATED["meanings"](kind).items())
