"""What the `rootfs` of a definition names: an image in a registry, an image in a file or directory, or a directory.

Both ends read it here: the BBS to refuse a bad one, a cell to get the image. Pure. No message quotes what was given,
which may have credentials in it.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from attrs import frozen

TAG_DEFAULT: Final = "latest"
REPOSITORY_CHARS_MAX: Final = 255
"""Together with the host, as registries count."""
IMAGE_SCHEMES: Final = frozenset({"docker", "oci"})

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]{{2,39}}\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9._+=,~@-]{1,255}")
_NAME = re.compile(r"[^/\x00-\x20\x7f]{1,255}")


class BadReference(ValueError):
    """The text names nothing; the message says which part is wrong and what is allowed."""


@frozen
class RegistryImage:
    """`docker://HOST/REPOSITORY:TAG@DIGEST`. A digest decides over a tag."""

    host: str
    """HOST[:PORT] in lower case; empty stands for the cell's default registry."""
    repository: str
    tag: str = TAG_DEFAULT
    digest: str = ""

    def __str__(self) -> str:
        digest = f"@{self.digest}" if self.digest else ""
        return f"docker://{self.host}/{self.repository}:{self.tag}{digest}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest, or else the tag."""
        return self.digest or self.tag


@frozen
class StoredImage:
    """`oci:PATH:TAG`, an OCI layout or a tar archive of one on the cell. Which of both, the file system knows."""

    path: str
    """Absolute, without `.` and `..`."""
    tag: str = ""
    """Empty: the only image there, or else the one named `latest`."""

    def __str__(self) -> str:
        return f"oci:{self.path}" + (f":{self.tag}" if self.tag else "")


@frozen
class PreloadedRootfs:
    """`preloaded:NAME`, a directory of the cell's image root."""

    name: str

    def __str__(self) -> str:
        return f"preloaded:{self.name}"


Reference: TypeAlias = RegistryImage | StoredImage | PreloadedRootfs


def parse(text: str) -> Reference:
    """What `text` names. `parse(str(reference)) == reference`. Raises BadReference."""
    scheme, _, rest = text.partition(":")
    match scheme:
        case "docker":
            return _registry_image(rest)
        case "oci":
            return _stored_image(rest)
        case "preloaded":
            return PreloadedRootfs(_checked(_NAME, rest, "the name after preloaded: is one name of a directory"))
        case _:
            raise BadReference("must begin with docker://, oci:/ or preloaded:")


def held_as(text: str) -> str | None:
    """The name under which a cell says that it has what `text` names, however that was spelled.

    None for what is no image that is fetched: which rootfses are preloaded a cell says anyway. Raises BadReference.
    """
    reference = parse(text)
    if isinstance(reference, PreloadedRootfs):
        return None
    if isinstance(reference, RegistryImage) and reference.digest:
        return digest_name(reference, reference.digest)
    return str(reference)


def digest_name(reference: RegistryImage, digest: str) -> str:
    """The same image by what it is, not by a tag that may move."""
    return f"docker://{reference.host}/{reference.repository}@{digest}"


def _registry_image(rest: str) -> RegistryImage:
    """Diego writes the tag behind `#`, everybody else behind `:`."""
    if not rest.startswith("//"):
        raise BadReference("must begin with docker://")
    host, slash, path = rest[2:].partition("/")
    if "@" in host:
        raise BadReference("holds credentials; they belong in image_username and image_password")
    if not slash:
        raise BadReference("has no repository; it is docker://HOST/REPOSITORY or docker:///REPOSITORY")
    path, hash_mark, fragment = path.partition("#")
    path, at, digest = path.partition("@")
    repository, colon, tag = path.partition(":")
    if hash_mark and (colon or at):
        raise BadReference("has a tag or digest before and behind #")
    if hash_mark and fragment.startswith("sha256:"):
        at, digest, fragment, hash_mark = "@", fragment, "", ""
    image = RegistryImage(
        host=_host(host) if host else "",
        repository=_checked(_REPOSITORY, repository, "the repository is lower-case words joined by / . _ and -"),
        tag=_tag(tag or fragment) if colon or hash_mark else TAG_DEFAULT,
        digest=_checked(_DIGEST, digest, "the digest is sha256: and 64 hexadecimal digits") if at else "",
    )
    if len(image.host) + 1 + len(image.repository) > REPOSITORY_CHARS_MAX:
        raise BadReference(f"host and repository have more than {REPOSITORY_CHARS_MAX} characters")
    return image


def _stored_image(rest: str) -> StoredImage:
    path, colon, tag = rest.partition(":")
    if not path.startswith("/"):
        raise BadReference("the path after oci: is absolute")
    for name in path[1:].split("/"):
        _checked(_FILE_NAME, name, "the path after oci: has only letters, digits and . _ + = , ~ @ - in its names")
        if name in (".", ".."):
            raise BadReference("the path after oci: has no . and no .. in it")
    return StoredImage(path, _tag(tag) if colon else "")


def _host(host: str) -> str:
    matched = _HOST.fullmatch(host)
    if matched is None or not 0 < int(matched["port"] or 1) < 65_536:
        raise BadReference("the host is a name or an address, with :PORT if need be")
    return host.lower()


def host_of(text: str) -> str:
    """HOST[:PORT] as references have it, for settings. Raises BadReference."""
    return _host(text)


def _tag(tag: str) -> str:
    return _checked(_TAG, tag, "the tag is up to 128 letters, digits, dots, dashes and underscores")


def _checked(pattern: re.Pattern[str], text: str, allowed: str) -> str:
    if pattern.fullmatch(text) is None:
        raise BadReference(allowed)
    return text
