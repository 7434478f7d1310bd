"""How the state tables of the nouns are used (style rule 16): a table is the specification, one lookup applies it."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


class IllegalTransition(ValueError):
    """The table has no move for this event from this state."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"{event.name} is not allowed from {state.name}")
        self.state = state
        self.event = event

    def __reduce__(self) -> tuple[type["IllegalTransition"], tuple[Enum, Enum]]:
        return (IllegalTransition, (self.state, self.event))


def next_state(table: Mapping[tuple[State, Event], State], state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalTransition if the table does not have the pair."""
    following = table.get((state, event))
    if following is None:
        raise IllegalTransition(state, event)
    return following
