"""Images in a registry (the OCI distribution protocol, and Docker's media types): what a tag means, and its layers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
from attrs import frozen

from cells.garden.children import in_thread
from cells.garden.config import ImageSettings
from cells.garden.images import documents
from cells.garden.images.image import Image, Layer
from cells.garden.images.partial import PartialBlob
from cells.garden.images.registry_client import Endpoint, RegistryClient
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import (
    DiegoError,
    ImageCorrupt,
    ImageUnsupported,
    Outcome,
    RegistryFailed,
    RegistryUnreachable,
)
from diego_py.image_reference import RegistryImage

T = TypeVar("T")

WRITE_BYTES: Final = 1024 * 1024
"""How much of a layer is gathered before it is hashed and written in a thread."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


@frozen
class RegistrySource:
    """An image of a registry. Mirrors are asked first; what decides, and what fails in the end, is the registry."""

    reference: RegistryImage
    endpoints: tuple[Endpoint, ...]
    """Mirrors, then the registry itself."""
    architecture: str
    settings: ImageSettings

    async def resolve(self, call: Call) -> Image:
        return await self._ask(call, f"resolve {self.reference}", self._resolve)

    async def fetch(self, call: Call, layer: Layer, into: Path) -> None:
        async def fetched(client: RegistryClient) -> OSError | None:
            """The failure of the local file is a value: a hop would take it for a defect of ours."""
            try:
                await self._fetch(client, layer, into)
            except OSError as unwritable:
                return unwritable
            return None

        unwritable = await self._ask(call, f"fetch {layer.digest}", fetched)
        if unwritable is not None:
            raise unwritable

    async def _ask(self, call: Call, op: str, ask: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """The first good answer. Each mirror has its share of the time, the registry what is left."""
        failed: list[DiegoError] = []
        several = len(self.endpoints) > 1
        for number, endpoint in enumerate(self.endpoints, start=1):
            share_ms = (call.remaining_ms() - ANSWER_MARGIN_MS) / (1 + len(self.endpoints) - number)
            try:
                with call.hop("registry", endpoint.host, op, RegistryFailed, number if several else None) as here:
                    here = here.with_budget(share_ms)
                    client = RegistryClient(endpoint, self.reference.repository, self.settings, here)
                    async with here.within_budget(op, Outcome.NOT_STARTED), client:
                        return await ask(client)
            except DiegoError as error:
                failed.append(error)
        if not several:
            raise failed[0]
        raise RegistryFailed(f"{op}: neither a mirror nor the registry", attempts=failed[:-1]) from failed[-1]

    async def _resolve(self, client: RegistryClient) -> Image:
        wanted, declared, digest = self.reference.wanted, "", self.reference.digest
        headers = {"Accept": ", ".join(documents.ACCEPTED)}
        for _ in range(documents.INDEX_DEPTH_MAX):
            content, declared = await client.read(f"manifests/{wanted}", documents.DOCUMENT_BYTES_MAX, headers)
            if digest:
                documents.check(content, digest, "the manifest")
            found = documents.read(content, declared)
            if isinstance(found, documents.Manifest):
                config = await self._config(client, found)
                digest = documents.digest_of(content)
                return documents.image_of(str(self.reference), digest, found, config, self.architecture)
            wanted = digest = found.choose(self.architecture).digest
        raise ImageUnsupported(f"an index below {documents.INDEX_DEPTH_MAX} others")

    async def _config(self, client: RegistryClient, manifest: documents.Manifest) -> bytes:
        digest = manifest.config.digest
        content, _ = await client.read(f"blobs/{digest}", documents.DOCUMENT_BYTES_MAX, {})
        documents.check(content, digest, "the configuration")
        return content

    async def _fetch(self, client: RegistryClient, layer: Layer, into: Path) -> None:
        blob = await in_thread(PartialBlob(layer, into).open)
        with blob:
            await self._complete(client, blob)
            if blob.pieced and not blob.fits():
                # One of the pieces was wrong; whole, the blob may be right.
                await in_thread(blob.discard)
                await self._complete(client, blob)
            await in_thread(blob.finish)

    async def _complete(self, client: RegistryClient, blob: PartialBlob) -> None:
        """Connect until the blob has its size, as long as each connection brings it forward."""
        for attempt in range(1, self.settings.attempts_max + 1):
            before = blob.most
            try:
                if blob.size < blob.layer.size or blob.layer.size == 0:
                    await self._continue(client, blob)
                return
            except RegistryUnreachable:
                if attempt == self.settings.attempts_max or blob.most <= before:
                    raise

    async def _continue(self, client: RegistryClient, blob: PartialBlob) -> None:
        headers = {"Range": f"bytes={blob.size}-"} if blob.size else {}
        async with client.get(f"blobs/{blob.layer.digest}", headers) as response:
            await self._position(response, blob)
            gathered = bytearray()
            try:
                with client.border():
                    async for chunk in response.content.iter_any():
                        gathered += chunk
                        if len(gathered) >= WRITE_BYTES:
                            full, gathered = gathered, bytearray()
                            await in_thread(blob.write, full)
            finally:
                if gathered:
                    await in_thread(blob.write, gathered)
        if blob.size < blob.layer.size:
            evidence = {"bytes": blob.size, "announced": blob.layer.size}
            raise RegistryUnreachable(f"{client.endpoint.host} ended the layer too early", evidence=evidence)

    async def _position(self, response: aiohttp.ClientResponse, blob: PartialBlob) -> None:
        """Make the blob end where the answer begins. Raises ImageCorrupt when the answer has another length."""
        first, total = 0, response.content_length
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            first = int(found[1]) if found else -1
            total = int(found[2]) if found and found[2] != "*" else None
            if first != blob.size:
                raise RegistryFailed("the registry answered another range than was asked for")
        if total is not None and total != blob.layer.size:
            evidence = {"announced": blob.layer.size, "got": total}
            raise ImageCorrupt(f"layer {blob.layer.digest} has another length than was announced", evidence=evidence)
        if first == 0 and blob.size:
            await in_thread(blob.restart)
        blob.pieced = blob.pieced or first > 0
