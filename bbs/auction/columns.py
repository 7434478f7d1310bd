"""Numbers of cells in columns: one array for all cells at once, and a view for one cell at a time. Pure."""

from __future__ import annotations

from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from attrs import define, field, fields
from numpy.typing import NDArray

Number = TypeVar("Number", int, float)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@define(eq=False)
class Column(Generic[Number]):
    """One number of each cell. `at` is the memory of `array`: it gives and takes one number three times as fast."""

    dtype: type[np.float64] | type[np.int64]
    array: NDArray[Any] = field(init=False)
    at: memoryview[Number] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._hold(np.zeros(0, self.dtype))

    def grow(self, count: int) -> None:
        """Room for so many cells; the new ones have 0."""
        grown = np.zeros(count, self.dtype)
        grown[: len(self.array)] = self.array
        self._hold(grown)

    def _hold(self, array: NDArray[Any]) -> None:
        self.array = array
        self.at = array.data  # type: ignore[assignment]


def whole_numbers() -> Column[int]:
    return Column(np.int64)


def fractions() -> Column[float]:
    return Column(np.float64)


Resource: TypeAlias = "tuple[memoryview[int], memoryview[int], memoryview[float]]"
Books: TypeAlias = "tuple[Resource, Resource, Resource, memoryview[int]]"
"""Of each resource what is available, the capacity and the weight; then how many are starting. At hand for every
placement."""


@define(eq=False)
class Columns:
    """What is known of each cell, by its slot."""

    memory_mb: Column[int] = field(factory=whole_numbers)
    """Available; so are the next two. Below 0 when more is on its way than fits."""
    disk_mb: Column[int] = field(factory=whole_numbers)
    containers: Column[int] = field(factory=whole_numbers)
    memory_capacity: Column[int] = field(factory=whole_numbers)
    disk_capacity: Column[int] = field(factory=whole_numbers)
    containers_capacity: Column[int] = field(factory=whole_numbers)
    memory_weight: Column[float] = field(factory=fractions)
    disk_weight: Column[float] = field(factory=fractions)
    containers_weight: Column[float] = field(factory=fractions)
    starting: Column[int] = field(factory=whole_numbers)
    tasks: Column[int] = field(factory=whole_numbers)
    base: Column[float] = field(factory=fractions)
    """The part of the score that is the same for every demand."""
    rushed: Column[float] = field(factory=fractions)
    """The same in a rush."""
    kind: Column[int] = field(factory=whole_numbers)
    zone: Column[int] = field(factory=whole_numbers)
    rank: Column[int] = field(factory=whole_numbers)
    """Place in the order of cell ids, which decides between equals."""
    packing: Column[float] = field(factory=fractions)
    """The cell's place in its zone times the weight of bin-packing."""

    books: Books = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.books = self._books()

    def all(self) -> dict[str, Column[Any]]:
        return {each.name: column for each in fields(Columns) if isinstance(column := getattr(self, each.name), Column)}

    def grow(self, count: int) -> None:
        for column in self.all().values():
            column.grow(count)
        self.books = self._books()

    def _books(self) -> Books:
        return (
            (self.memory_mb.at, self.memory_capacity.at, self.memory_weight.at),
            (self.disk_mb.at, self.disk_capacity.at, self.disk_weight.at),
            (self.containers.at, self.containers_capacity.at, self.containers_weight.at),
            self.starting.at,
        )
