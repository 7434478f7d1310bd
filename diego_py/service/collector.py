"""Python's collector of cyclic garbage, set for a process that serves: what is imported lives as long as it does."""

from __future__ import annotations

import gc

YOUNG_MAX = 10_000
"""New objects before a look for cycles among them; Python's own 700 are made several times in each request."""
OLDER = (10, 10)


def settle() -> None:
    """Call it when all is imported and wired: collections need not look at any of that again."""
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *OLDER)
