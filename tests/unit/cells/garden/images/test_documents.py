import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.images import documents
from cells.garden.images.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR,
    Index,
    Manifest,
)
from diego_py.errors import ImageCorrupt, ImagePlatformMissing, ImageUnsupported

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def pointer(digest: str, size: int = 10, kind: str = GZIP, **more: Any) -> dict[str, Any]:
    return {"digest": digest, "size": size, "mediaType": kind, **more}


def entry(digest: str, architecture: str, os: str = "linux", variant: str = "") -> dict[str, Any]:
    return pointer(digest, kind=OCI_MANIFEST, platform={"os": os, "architecture": architecture, "variant": variant})


def index(*entries: dict[str, Any]) -> Index:
    found = documents.read(json({"schemaVersion": 2, "manifests": entries}), OCI_INDEX)
    assert isinstance(found, Index)
    return found


def manifest(**changes: Any) -> bytes:
    return json({"schemaVersion": 2, "config": pointer(ONE, kind=CONFIG), "layers": [pointer(TWO)], **changes})


def image(told: dict[str, Any], **changes: Any) -> Any:
    found = documents.read(manifest(**changes), OCI_MANIFEST)
    assert isinstance(found, Manifest)
    return documents.image_of("docker://h/a:latest", THREE, found, json(told), "amd64")


FULL = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Env": ["PATH=/bin", "A=b=c", "EMPTY=", "bare", "=x"],
        "User": "alice",
        "WorkingDir": "/srv",
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["true"],
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "443": {}, "nonsense/tcp": {}, "70000/tcp": {}, "٣/tcp": {}},
        "Labels": {"maintainer": "me"},
    },
    "rootfs": {"type": "layers", "diff_ids": [THREE]},
}


def test_an_image() -> None:
    found = image(FULL)
    assert found.config.env == (("PATH", "/bin"), ("A", "b=c"), ("EMPTY", ""))
    assert (found.config.user, found.config.working_dir) == ("alice", "/srv")
    assert (found.config.entrypoint, found.config.cmd) == (("/bin/sh", "-c"), ("true",))
    assert found.config.exposed_ports == (443, 8080)
    assert found.config.labels == {"maintainer": "me"}
    (layer,) = found.layers
    assert (layer.digest, layer.diff_id, layer.size, layer.media_type) == (TWO, THREE, 10, GZIP)
    assert "PATH" not in repr(found)


def test_nulls_are_what_dockers_builder_writes() -> None:
    process = {"Env": None, "Entrypoint": None, "Cmd": None, "ExposedPorts": None, "Labels": None, "User": None}
    assert image({**FULL, "config": process}).config.cmd == ()
    assert image({**FULL, "config": None}).config.env == ()


@pytest.mark.parametrize(
    ("entries", "architecture", "chosen"),
    [
        ([entry(ONE, "arm64"), entry(TWO, "amd64")], "amd64", TWO),
        ([entry(ONE, "amd64", variant="v3"), entry(TWO, "amd64")], "amd64", TWO),
        ([entry(ONE, "arm64", variant="v8")], "arm64", ONE),
        ([entry(ONE, "arm", variant="v6"), entry(TWO, "arm", variant="v7")], "arm", TWO),
        ([entry(ONE, "amd64", os="windows"), entry(TWO, "amd64")], "amd64", TWO),
        ([entry(ONE, "unknown", os="unknown"), entry(TWO, "amd64")], "amd64", TWO),
        ([pointer(ONE)], "amd64", ONE),
    ],
)
def test_the_best_of_an_index(entries: list[dict[str, Any]], architecture: str, chosen: str) -> None:
    assert index(*entries).choose(architecture).digest == chosen


def test_a_missing_platform_says_what_is_there() -> None:
    offered = index(entry(ONE, "arm64", variant="v8"), entry(TWO, "s390x"), entry(THREE, "amd64", variant="v4"))
    with pytest.raises(ImagePlatformMissing, match="linux/amd64") as missing:
        offered.choose("amd64")
    assert missing.value.evidence == {"platforms": ["linux/amd64/v4", "linux/arm64/v8", "linux/s390x"]}
    with pytest.raises(ImagePlatformMissing):
        image({**FULL, "architecture": "arm64"})


@pytest.mark.parametrize(
    ("content", "declared", "kind"),
    [
        (manifest(), OCI_MANIFEST, Manifest),
        (manifest(), "", Manifest),
        (manifest(), "application/json; charset=utf-8", Manifest),
        (manifest(mediaType=DOCKER_MANIFEST), "text/plain", Manifest),
        (json({"manifests": []}), DOCKER_LIST, Index),
        (json({"manifests": [], "mediaType": OCI_INDEX}), "", Index),
    ],
)
def test_kinds(content: bytes, declared: str, kind: type) -> None:
    assert isinstance(documents.read(content, declared), kind)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        manifest(manifests=[]),
        json({"manifests": [], "mediaType": OCI_MANIFEST}),
        json({"manifests": [], "config": pointer(ONE)}),
        manifest(mediaType=OCI_INDEX),
        json({"layers": []}),
        manifest(layers=[pointer("sha256:../../etc/passwd")]),
        manifest(layers=[pointer("sha256:" + "A" * 64)]),
        manifest(layers=[pointer(TWO, size=-1)]),
        manifest(layers=[{"digest": TWO}]),
    ],
)
def test_damaged_manifests(content: bytes) -> None:
    with pytest.raises(ImageCorrupt):
        documents.read(content, "")


def test_other_kinds_are_named() -> None:
    signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with pytest.raises(ImageUnsupported, match="prettyjws"):
        documents.read(manifest(), signed)
    with pytest.raises(ImageUnsupported, match="brotli"):
        image(FULL, layers=[pointer(TWO, kind=OCI_TAR + "+brotli")])
    with pytest.raises(ImageUnsupported, match="helm"):
        image(FULL, config=pointer(ONE, kind="application/vnd.cncf.helm.config.v1+json"))
    with pytest.raises(ImageUnsupported, match="sha512"):
        documents.read(manifest(layers=[pointer("sha512:" + "0" * 128)]), "")


def test_layers_and_their_contents_must_match() -> None:
    with pytest.raises(ImageCorrupt, match="1 layers and 0 diff_ids"):
        image({**FULL, "rootfs": None})
    with pytest.raises(ImageCorrupt):
        image({**FULL, "rootfs": {"diff_ids": ["sha256:nonsense"]}})


@given(json_values)
def test_any_json_is_read_or_refused_in_our_words(value: Any) -> None:
    for read in (documents.read, lambda content: documents.read_config(content, "amd64")):
        with contextlib.suppress(ImageCorrupt, ImageUnsupported, ImagePlatformMissing):
            read(json(value))


def test_a_tag_is_found_in_either_spelling() -> None:
    names = ["latest", "docker.example/app:1.2", ""]
    found = index(*(pointer(ONE, annotations={documents.REF_NAME: name}) for name in names))
    assert len(found.named("1.2").entries) == 1
    assert len(found.named("2").entries) == 0
    assert found.names() == ["latest", "docker.example/app:1.2"]
