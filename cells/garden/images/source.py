"""Where an image comes from: the one interface of registries, OCI layouts and archives."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cells.garden.images.image import Image, ImageConfig, Layer
from diego_py.call import Call

PARTIAL = ".part"
"""Suffix of a blob while it is fetched. One that was left behind is continued by the next fetch into the same path."""


class Source(Protocol):
    """One image of one reference, with the credentials that it was asked for with. Keeps nothing open between calls."""

    async def resolve(self, call: Call) -> Image:
        """Ask what the reference stands for now, for this host's platform. Nothing is written.

        Raises ImageNotAllowed, ImageNotFound, ImageUnsupported, ImagePlatformMissing, ImageCorrupt, RegistryDenied,
        RegistryRateLimited, RegistryUnreachable, RegistryFailed, BudgetSpent.
        """

    async def fetch(self, call: Call, layer: Layer, into: Path) -> None:
        """Write the layer's blob at `into`, whole and checked, or raise: nothing appears there before its digest fits.

        What came before a failure stays at `into` with the suffix PARTIAL, so that the next try continues it; after
        ImageCorrupt it is gone. One fetch into a path at a time. Raises what `resolve` does, and OSError as it comes
        when the local file cannot be written.
        """


__all__ = ["PARTIAL", "Image", "ImageConfig", "Layer", "Source"]
