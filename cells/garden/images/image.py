"""The nouns of images: what a source tells of one before any layer of it is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Layer:
    """One layer as it is transferred. Both digests are `sha256:` and 64 hexadecimal digits."""

    digest: str
    """Of the blob as it is transferred, compressed or not."""
    diff_id: str
    """Of the tar archive inside."""
    size: int
    """Bytes of the blob; a source never writes more."""
    media_type: str
    """One of `documents.LAYERS`; says how the tar archive is compressed."""


@frozen
class ImageConfig:
    """What an image says of the process to run in it. Nothing of it is trusted: it is the image maker's wish."""

    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    user: str = ""
    """`name`, `uid`, `name:group` or `uid:gid`; empty is root."""
    working_dir: str = ""
    """Absolute; empty is `/`."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    exposed_ports: tuple[int, ...] = ()
    """TCP ports, ascending."""
    architecture: str = ""
    """In the words of OCI: `amd64`, `arm64`."""
    os: str = ""
    labels: Mapping[str, str] = field(factory=dict)


@frozen
class Image:
    """An image as a source resolved it; all its documents were checked against their digests."""

    reference: str
    """As it was asked for, without credentials."""
    digest: str
    """Of the manifest for this host's platform. Of an archive without manifests, of the configuration."""
    config: ImageConfig
    layers: tuple[Layer, ...]
    """From the lowest to the highest. The same layer may come more than once."""
