"""The JSON documents of an image: indexes, manifests, configurations. Read, checked and chosen from. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from attrs import frozen

from cells.garden.images.image import Image, ImageConfig, Layer
from diego_py.errors import ImageCorrupt, ImagePlatformMissing, ImageUnsupported

DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of a manifest, an index or a configuration; registries themselves take no larger manifests."""
INDEX_DEPTH_MAX: Final = 3
"""An index may point to an index; so many at most."""

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
OCI_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
LAYERS: Final[Mapping[str, str]] = {
    OCI_TAR: "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
"""Media types of layers that can be unpacked, and how each is compressed."""
ACCEPTED: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
REF_NAME: Final = "org.opencontainers.image.ref.name"
"""Annotation with the tag of an image in an OCI layout."""

_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "amd64": ("", "v1"),
    "arm64": ("", "v8"),
    "arm": ("v7", "v6", "v5", ""),
}
"""Variants that every host of the architecture runs, the best first. Others only run on some."""
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
}
_UNNAMED_TYPES: Final = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
"""What a server says that does not know what it serves."""
_PLATFORMS_SHOWN_MAX: Final = 20
_HEX: Final = frozenset("0123456789abcdef")

T = TypeVar("T")


@frozen
class Descriptor:
    """Points to a document or a layer."""

    digest: str
    size: int
    media_type: str


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _Pointer(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """An index has `manifests`, a manifest `config` and `layers`; one with both would deceive somebody."""

    media_type: str = ""
    manifests: tuple[_Pointer, ...] | None = None
    config: _Pointer | None = None
    layers: tuple[_Pointer, ...] | None = None


class _Process(msgspec.Struct, frozen=True, rename="pascal"):
    env: tuple[str, ...] | None = None
    user: str | None = None
    working_dir: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    exposed_ports: dict[str, Any] | None = None
    labels: dict[str, str] | None = None


class _Rootfs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = None


class _Config(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    config: _Process | None = None
    rootfs: _Rootfs | None = None


@frozen
class Manifest:
    """One image for one platform, as far as its manifest tells."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@frozen
class Index:
    """Images to choose from."""

    entries: tuple[_Pointer, ...]

    def choose(self, architecture: str) -> Descriptor:
        """The one for Linux on `architecture`; one that names no platform if it is the only one there.

        Raises ImagePlatformMissing with those that are there.
        """
        suited = sorted(self._suited(architecture), key=lambda found: found[0])
        if suited:
            return _descriptor(suited[0][1])
        unnamed = [entry for entry in self.entries if entry.platform is None]
        if len(unnamed) == 1:
            return _descriptor(unnamed[0])
        raise ImagePlatformMissing(
            f"the image has nothing for linux/{architecture}", evidence={"platforms": self._platforms()}
        )

    def named(self, tag: str) -> Index:
        """What of it has this tag, as OCI layouts and Docker's archives write it."""
        return Index(tuple(entry for entry in self.entries if _is_named(_name(entry), tag)))

    def names(self) -> list[str]:
        """The tags there, those that the entries have."""
        return [name for name in map(_name, self.entries) if name][:_PLATFORMS_SHOWN_MAX]

    def _suited(self, architecture: str) -> Iterator[tuple[int, _Pointer]]:
        variants = _VARIANTS.get(architecture, ("",))
        for entry in self.entries:
            platform = entry.platform
            if platform is None or (platform.os, platform.architecture) != ("linux", architecture):
                continue
            if platform.variant in variants:
                yield variants.index(platform.variant), entry

    def _platforms(self) -> list[str]:
        told = [
            "/".join(part for part in (entry.platform.os, entry.platform.architecture, entry.platform.variant) if part)
            for entry in self.entries
            if entry.platform is not None
        ]
        return sorted(set(told))[:_PLATFORMS_SHOWN_MAX]


def architecture_of(machine: str) -> str:
    """The architecture in the words of OCI, for a machine in the words of `uname -m`."""
    return _ARCHITECTURES.get(machine, machine)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def check(content: bytes, digest: str, what: str) -> None:
    """Raises ImageCorrupt unless `content` has this digest."""
    found = digest_of(content)
    if found != digest:
        raise ImageCorrupt(f"{what} has another digest", evidence={"wanted": digest, "got": found})


def read(content: bytes, declared: str = "") -> Index | Manifest:
    """An index or a manifest whose media type was `declared` by whoever served it.

    Raises ImageCorrupt for what is no such document, and ImageUnsupported for one of another kind.
    """
    document = _decode(content, _Document, "manifest")
    kind = document.media_type or declared.partition(";")[0].strip().lower()
    if kind not in INDEXES | MANIFESTS | _UNNAMED_TYPES:
        raise ImageUnsupported(f"a manifest of type {kind[:200]!r}", evidence={"media_type": kind[:200]})
    if (document.manifests is None) == (document.layers is None):
        raise ImageCorrupt("the manifest is not one of: an index with manifests, an image with layers")
    if document.manifests is not None:
        if kind in MANIFESTS or document.config is not None:
            raise ImageCorrupt("the manifest is an index and an image at once")
        return Index(document.manifests)
    if kind in INDEXES or document.layers is None or document.config is None:
        raise ImageCorrupt("the manifest has layers and no configuration, or says it is an index")
    return Manifest(_descriptor(document.config), tuple(_descriptor(layer) for layer in document.layers))


def image_of(reference: str, digest: str, manifest: Manifest, config: bytes, architecture: str) -> Image:
    """The image of a manifest and its configuration, both checked against their digests by the caller.

    Raises ImageCorrupt, ImageUnsupported, ImagePlatformMissing.
    """
    if manifest.config.media_type not in CONFIGS:
        raise ImageUnsupported(
            f"a configuration of type {manifest.config.media_type[:200]!r}: this is no container image",
            evidence={"media_type": manifest.config.media_type[:200]},
        )
    for layer in manifest.layers:
        if layer.media_type not in LAYERS:
            raise ImageUnsupported(
                f"a layer of type {layer.media_type[:200]!r}", evidence={"media_type": layer.media_type[:200]}
            )
    told, diff_ids = read_config(config, architecture)
    if len(diff_ids) != len(manifest.layers):
        raise ImageCorrupt(f"the image has {len(manifest.layers)} layers and {len(diff_ids)} diff_ids")
    layers = tuple(
        Layer(digest=layer.digest, diff_id=diff_id, size=layer.size, media_type=layer.media_type)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return Image(reference=reference, digest=digest, config=told, layers=layers)


def read_config(content: bytes, architecture: str) -> tuple[ImageConfig, Sequence[str]]:
    """An image's configuration and the diff_ids of its layers. Raises ImageCorrupt, ImagePlatformMissing."""
    said = _decode(content, _Config, "configuration")
    if said.os not in ("", "linux") or said.architecture not in ("", architecture):
        platform = f"{said.os}/{said.architecture}"
        raise ImagePlatformMissing(
            f"the image is for {platform[:200]}, this host is linux/{architecture}", evidence={"platforms": [platform]}
        )
    diff_ids = (said.rootfs.diff_ids if said.rootfs else None) or ()
    for diff_id in diff_ids:
        check_form(diff_id)
    process = said.config or _Process()
    config = ImageConfig(
        env=tuple((name, value) for name, equals, value in map(_split, process.env or ()) if equals and name),
        user=process.user or "",
        working_dir=process.working_dir or "",
        entrypoint=process.entrypoint or (),
        cmd=process.cmd or (),
        exposed_ports=tuple(sorted(_tcp_ports(process.exposed_ports or {}))),
        architecture=said.architecture,
        os=said.os,
        labels=process.labels or {},
    )
    return config, diff_ids


def check_form(digest: str) -> str:
    """The digest, if it is one that can become a file's name. Raises ImageCorrupt, ImageUnsupported."""
    algorithm, colon, digits = digest.partition(":")
    if colon and algorithm in ("sha512", "sha384", "blake3"):
        raise ImageUnsupported(f"a digest of {algorithm}", evidence={"algorithm": algorithm})
    if algorithm != "sha256" or len(digits) != 64 or not _HEX.issuperset(digits):
        raise ImageCorrupt("a digest is not sha256: and 64 hexadecimal digits")
    return digest


def _descriptor(pointer: _Pointer) -> Descriptor:
    if pointer.size < 0:
        raise ImageCorrupt("a size is negative")
    return Descriptor(check_form(pointer.digest), pointer.size, pointer.media_type)


def _decode(content: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as malformed:
        # ValidationError is a DecodeError; its words quote names and types, no values.
        raise ImageCorrupt(f"the {what} cannot be read", evidence={"reason": str(malformed)[:500]}) from malformed


def _split(variable: str) -> tuple[str, str, str]:
    return variable.partition("=")


def _tcp_ports(exposed: Mapping[str, object]) -> set[int]:
    """The TCP ports of `8080/tcp` and `8080`; what is no port or of another protocol is left out."""
    split = [port.partition("/") for port in exposed]
    named = [number for number, _, protocol in split if protocol in ("", "tcp") and number.isascii()]
    return {int(number) for number in named if number.isdigit() and len(number) < 6 and 0 < int(number) < 65_536}


def _name(entry: _Pointer) -> str:
    return (entry.annotations or {}).get(REF_NAME, "")


def _is_named(name: str, tag: str) -> bool:
    return name == tag or name.endswith(f":{tag}")
