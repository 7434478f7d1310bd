"""Images on the cell itself: an OCI layout, as directory or tar archive, or what `docker save` writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from attrs import define

from cells.garden.children import in_thread
from cells.garden.config import ImageSettings
from cells.garden.images import documents
from cells.garden.images.archive import Archive, Contents, Extent, open_archive
from cells.garden.images.image import Image, Layer
from cells.garden.images.partial import READ_BYTES, PartialBlob
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import BudgetSpent, GardenFailed, ImageCorrupt, ImageNotFound, ImageUnsupported, Outcome
from diego_py.image_reference import TAG_DEFAULT, StoredImage

T = TypeVar("T")

INDEX: Final = "index.json"
DOCKER_INDEX: Final = "manifest.json"


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of a `docker save` archive: names of files of the archive."""

    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


@define
class LayoutSource:
    """An image of a directory or file below the cell's `image_dirs`."""

    reference: StoredImage
    architecture: str
    settings: ImageSettings
    _known: Contents | None = None
    """Of the archive when it was last open, so that a compressed one is read through once for all its layers."""

    async def resolve(self, call: Call) -> Image:
        return await self._work(call, f"resolve {self.reference}", partial(self._resolve, call))

    async def fetch(self, call: Call, layer: Layer, into: Path) -> None:
        def fetched() -> OSError | None:
            """The failure of a file is a value: a hop would take it for a defect of ours."""
            try:
                self._fetch(call, layer, into)
            except OSError as failed:
                return failed
            return None

        failed = await self._work(call, f"fetch {layer.digest}", fetched)
        if failed is not None:
            raise failed

    async def _work(self, call: Call, op: str, work: Callable[[], T]) -> T:
        with call.hop("layout", self.reference.path, op, GardenFailed) as here:
            async with here.with_budget(call.remaining_ms() - ANSWER_MARGIN_MS).within_budget(op, Outcome.NOT_STARTED):
                return await in_thread(work)

    def _open(self, call: Call) -> Archive:
        def heed() -> None:
            if call.remaining_ms() < ANSWER_MARGIN_MS:
                raise BudgetSpent(f"read {self.reference.path} through")

        archive = open_archive(self.reference.path, self.settings.image_dirs, self._known, heed)
        self._known = archive.contents
        return archive

    def _resolve(self, call: Call) -> Image:
        try:
            with self._open(call) as archive:
                index = archive.find(INDEX)
                return self._of_saved(archive) if index is None else self._of_layout(archive, index)
        except OSError as unreadable:
            evidence = {"path": self.reference.path, "reason": str(unreadable)}
            raise ImageCorrupt(f"{self.reference.path} cannot be read", evidence=evidence) from unreadable

    def _of_layout(self, archive: Archive, index: Extent) -> Image:
        found = documents.read(index.content(documents.DOCUMENT_BYTES_MAX, INDEX), documents.OCI_INDEX)
        if not isinstance(found, documents.Index):
            raise ImageCorrupt(f"{INDEX} is no index")
        found = self._named(found)
        for _ in range(documents.INDEX_DEPTH_MAX):
            digest = found.choose(self.architecture).digest
            below = documents.read(_document(archive, digest))
            if isinstance(below, documents.Manifest):
                config = _document(archive, below.config.digest)
                return documents.image_of(str(self.reference), digest, below, config, self.architecture)
            found = below
        raise ImageUnsupported(f"an index below {documents.INDEX_DEPTH_MAX} others")

    def _named(self, index: documents.Index) -> documents.Index:
        """The entries of the tag; without a tag the only image, or else the one named `latest`."""
        tag = self.reference.tag
        named = index.named(tag or TAG_DEFAULT)
        if named.entries:
            return named
        if not tag and len(set(index.names())) <= 1:
            return index
        raise ImageNotFound(f"{self.reference} is not there", evidence={"tags": index.names()})

    def _of_saved(self, archive: Archive) -> Image:
        saved = self._saved(archive)
        config = _member(archive, saved.config).content(documents.DOCUMENT_BYTES_MAX, saved.config)
        told, diff_ids = documents.read_config(config, self.architecture)
        if len(diff_ids) != len(saved.layers):
            raise ImageCorrupt(f"the image has {len(saved.layers)} layers and {len(diff_ids)} diff_ids")
        layers = tuple(
            Layer(digest=diff_id, diff_id=diff_id, size=_member(archive, name).size, media_type=documents.OCI_TAR)
            for name, diff_id in zip(saved.layers, diff_ids, strict=True)
        )
        return Image(str(self.reference), documents.digest_of(config), told, layers)

    def _saved(self, archive: Archive) -> _Saved:
        index = archive.find(DOCKER_INDEX)
        if index is None:
            raise ImageNotFound(f"{self.reference.path} holds no image", evidence={"missing": [INDEX, DOCKER_INDEX]})
        try:
            content = index.content(documents.DOCUMENT_BYTES_MAX, DOCKER_INDEX)
            images = msgspec.json.decode(content, type=tuple[_Saved, ...])
        except (msgspec.DecodeError, RecursionError) as malformed:
            evidence = {"reason": str(malformed)[:500]}
            raise ImageCorrupt(f"{DOCKER_INDEX} cannot be read", evidence=evidence) from malformed
        wanted = f":{self.reference.tag or TAG_DEFAULT}"
        tagged = [image for image in images if any(tag.endswith(wanted) for tag in image.repo_tags or ())]
        if not tagged and not self.reference.tag and len(images) == 1:
            tagged = list(images)
        if not tagged:
            tags = [tag for image in images for tag in image.repo_tags or ()]
            raise ImageNotFound(f"{self.reference} is not there", evidence={"tags": tags[:20]})
        return tagged[0]

    def _fetch(self, call: Call, layer: Layer, into: Path) -> None:
        with self._open(call) as archive:
            extent = self._layer(archive, layer)
            if extent.size != layer.size:
                evidence = {"announced": layer.size, "got": extent.size}
                raise ImageCorrupt(f"layer {layer.digest} has another length than was announced", evidence=evidence)
            with PartialBlob(layer, into).open() as blob:
                while content := extent.read(blob.size, READ_BYTES):
                    blob.write(content)
                    if call.remaining_ms() < ANSWER_MARGIN_MS:
                        return  # Whoever waits for this thread has given up; what is there stays for the next one.
                blob.finish()

    def _layer(self, archive: Archive, layer: Layer) -> Extent:
        found = archive.find(_blob(layer.digest))
        if found is None and archive.find(INDEX) is None:
            saved = self._saved(archive)
            config = _member(archive, saved.config).content(documents.DOCUMENT_BYTES_MAX, saved.config)
            _, diff_ids = documents.read_config(config, self.architecture)
            names = dict(zip(diff_ids, saved.layers, strict=False))
            found = archive.find(names[layer.diff_id]) if layer.diff_id in names else None
        if found is None:
            raise ImageNotFound(f"the layer {layer.digest} is not there", evidence={"path": self.reference.path})
        return found


def _blob(digest: str) -> str:
    """The file of a digest whose form was checked."""
    return "blobs/" + documents.check_form(digest).replace(":", "/")


def _document(archive: Archive, digest: str) -> bytes:
    content = _member(archive, _blob(digest)).content(documents.DOCUMENT_BYTES_MAX, digest)
    documents.check(content, digest, "a document")
    return content


def _member(archive: Archive, name: str) -> Extent:
    found = archive.find(name)
    if found is None:
        raise ImageCorrupt("a file that the image names is not there", evidence={"missing": name[:500]})
    return found
