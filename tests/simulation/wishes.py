"""What the clients of one run ask for, drawn from its seed: a selection of kinds, so that those of a run meet often."""

from __future__ import annotations

from random import Random

from attrs import frozen

USUAL = {"desire": 5, "scale": 3, "restart": 1, "stop": 1, "delete": 2}
SOMETIMES = {
    "replacing": {"replace": 4},
    "annotating": {"annotate": 1},
    "refreshing": {"refresh": 2},
}


@frozen(kw_only=True)
class Wishes:
    """Of one run."""

    guids: int
    """Of how many LRPs requests are about; the fewer, the more of them meet."""
    task_share: float
    """What part of the requests is about tasks."""
    drain_share: float
    """What part of them empties cells, or gives them work again."""
    weights: tuple[tuple[str, ...], tuple[int, ...]]
    """Kinds of requests about LRPs, and how often each comes."""
    checked: bool
    """Whether LRPs have a readiness check."""
    callbacks: bool
    """Whether who asks for a task wants to be called back."""
    domain_ttl_s: float | None
    """How long the domain is fresh from the beginning; None: for ever."""

    @classmethod
    def drawn(cls, random: Random) -> Wishes:
        """Mostly few kinds."""
        kinds = dict(USUAL)
        for more in SOMETIMES.values():
            if random.random() < 0.3:
                kinds |= more
        return cls(
            guids=random.choice((1, 1, 2, 3)),
            task_share=random.choice((0.0, 0.0, 0.3, 1.0)),
            drain_share=random.choice((0.0, 0.0, 0.2)),
            weights=(tuple(kinds), tuple(kinds.values())),
            checked=random.random() < 0.3,
            callbacks=random.random() < 0.5,
            domain_ttl_s=random.choice((0.0, 3.0)) if "refresh" in kinds else None,
        )
