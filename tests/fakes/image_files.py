"""Images as files: OCI layouts and what `docker save` writes, as directory or as tar archive, plain or compressed."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import msgspec

from cells.garden.images.documents import OCI_INDEX, REF_NAME
from tests.fakes.registry import BuiltImage, digest_of

Files = dict[str, bytes]
"""Contents by path."""


def layout(*named: tuple[BuiltImage, str]) -> Files:
    """The files of an OCI layout."""
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest_of(image.manifest),
            "size": len(image.manifest),
            **({"annotations": {REF_NAME: tag}} if tag else {}),
        }
        for image, tag in named
    ]
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    files["index.json"] = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    for image, _ in named:
        for blob in (image.manifest, *image.blobs.values()):
            files["blobs/" + digest_of(blob).replace(":", "/")] = blob
    return files


def saved(image: BuiltImage, tag: str) -> Files:
    """The files of `docker save`, as it wrote them before it knew OCI: layers are not compressed."""
    config = next(blob for blob in image.blobs.values() if blob not in image.layers)
    layers = {f"{number}/layer.tar": gzip.decompress(layer) for number, layer in enumerate(image.layers)}
    told = [{"Config": "config.json", "RepoTags": [f"docker.example/app:{tag}"], "Layers": list(layers)}]
    return {"config.json": config, "manifest.json": msgspec.json.encode(told), **layers}


def as_directory(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def as_tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def as_gzip(path: Path, files: Files) -> Path:
    """As `docker save | gzip` does."""
    path.write_bytes(gzip.compress(as_tar(path, files).read_bytes(), 1))
    return path
