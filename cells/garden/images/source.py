"""Where an image comes from: the one interface of registries and of images on the cell itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from yarl import URL

from cells.garden.config import ImageSettings
from cells.garden.images import partial
from cells.garden.images.challenge import Credentials
from cells.garden.images.documents import architecture_of
from cells.garden.images.image import Image, ImageConfig, Layer
from cells.garden.images.layout import LayoutSource
from cells.garden.images.registry import RegistrySource
from cells.garden.images.registry_client import Endpoint
from cells.outbound import reach
from diego_py.call import Call
from diego_py.errors import ImageNotAllowed, InvalidSpec, RegistryNotAllowed
from diego_py.image_reference import BadReference, RegistryImage, StoredImage, parse
from diego_py.secret import Secret

PARTIAL = partial.SUFFIX
"""Of a blob while it is fetched. One that was left behind is continued by the next fetch into the same path."""


class Source(Protocol):
    """One image of one reference, with the credentials that it was asked for with. Keeps nothing open between calls."""

    async def resolve(self, call: Call) -> Image:
        """Ask what the reference stands for now, for this host's platform. Nothing is written.

        Raises ImageNotAllowed, ImageNotFound, ImageUnsupported, ImagePlatformMissing, ImageCorrupt, RegistryDenied,
        RegistryRateLimited, RegistryUnreachable, RegistryNotAllowed, RegistryFailed, BudgetSpent.
        """

    async def fetch(self, call: Call, layer: Layer, into: Path) -> None:
        """Write the layer's blob at `into`, whole and checked, or raise: nothing appears there before its digest fits.

        What came before a failure stays at `into` with the suffix PARTIAL, so that the next try continues it; after
        ImageCorrupt it is gone. One fetch into a path at a time. Raises what `resolve` does, and OSError as it comes
        when the local file cannot be written.
        """


def source_of(rootfs: str, username: str, password: Secret | None, settings: ImageSettings) -> Source:
    """Where the image of a `docker:` or `oci:` rootfs comes from.

    Raises InvalidSpec, ImageNotAllowed, RegistryNotAllowed.
    """
    try:
        reference = parse(rootfs)
    except BadReference as bad:
        raise _invalid(str(bad)) from bad
    architecture = architecture_of(os.uname().machine)
    match reference:
        case RegistryImage():
            credentials = Credentials(username, password) if username and password else None
            return RegistrySource(reference, _endpoints(reference, credentials, settings), architecture, settings)
        case StoredImage():
            return LayoutSource(reference, architecture, settings)
        case _:
            raise _invalid("names no image")


def _endpoints(
    reference: RegistryImage, credentials: Credentials | None, settings: ImageSettings
) -> tuple[Endpoint, ...]:
    host = reference.host or settings.default_registry
    if not host:
        told = "the rootfs names no registry, and the cell's config has no default_registry"
        raise ImageNotAllowed(told)
    registry = Endpoint(host, credentials, _is_plain(host, settings))
    if not reach.may_be_asked(registry.url, settings.patterns):
        raise RegistryNotAllowed(f"{host} is none of the cell's allowed_registries", evidence={"registry": host})
    mirrors = settings.mirrors.get(host, ())
    return (*(Endpoint(mirror, None, _is_plain(mirror, settings), ours=True) for mirror in mirrors), registry)


def _is_plain(host: str, settings: ImageSettings) -> bool:
    return host in settings.insecure_registries or reach.is_loopback(URL(f"http://{host}").host)


def _invalid(told: str) -> InvalidSpec:
    error = {"pointer": "/rootfs", "code": "invalid", "detail": told}
    return InvalidSpec("the rootfs names no image", errors=[error])


__all__ = ["PARTIAL", "Image", "ImageConfig", "Layer", "Source", "source_of"]
