"""How well a cell suits a demand, in named terms; lower is better. Pure. Diego: rep/resources.go.

The score of a cell is `(base + static) + spread`:

    base     what is used of the cell (each resource times its weight), and what is starting there
             in a rush the load only in whole steps, and of what is starting only whole bundles
    static   what the demand needs, unasked tags, the cell's place in its zone for bin-packing, and an image to fetch
    spread   instances of the same process there, for a task the tasks there

Every term is a whole number of quanta, so their sums are exact in a float below 32,768: in whatever order they are
added, for one cell or for all at once, each gets the same number, and what is added to two leaves the lesser one less.
"""

from __future__ import annotations

QUANTA = 2.0**38
"""In 1."""
STARTING_WEIGHT = 0.25
"""Each instance that is still starting on the cell costs as much as a quarter of its capacity (Diego's default)."""
RUSH_BUNDLE = 16
"""In a rush so many may be starting on a cell before that costs anything: about as many as a cell of two processors
begins at the same time by itself."""
RUSH_LOAD_STEPS = 32
"""In a rush cells are equal whose load is in the same one of so many parts of their capacity."""
SPREAD_WEIGHT = 1000.0
"""Each instance of the same process, for a task each task, on the cell outweighs any load (Diego's LocalityOffset)."""
UNASKED_TAG_WEIGHT = 10.0
"""Each optional tag of the cell that the demand does not ask for outweighs any load, not the spread of one process:
such cells stay free for who asks."""
IMAGE_WEIGHT = 0.125
"""An image that must still be fetched, while another cell has it, costs as much as an eighth of the cell's capacity:
less than one instance that starts there, so an image that few have draws no crowd to them."""


def rushed(load: float, starting: int) -> float:
    """The base of a cell in a rush: those that are nearly equal are equal, so the first of them gets several."""
    steps = load * RUSH_LOAD_STEPS // 1
    return steps / RUSH_LOAD_STEPS + starting // RUSH_BUNDLE * (RUSH_BUNDLE * STARTING_WEIGHT)


def weight(capacity: int) -> float:
    """What one unit of a resource costs: all of it is a third of the load. A cell without any counts as empty of it."""
    return exact(1 / (3 * capacity)) if capacity > 0 else 0.0


def exact(term: float) -> float:
    """The nearest number that scores are made of."""
    return round(term * QUANTA) / QUANTA
