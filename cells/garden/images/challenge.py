"""How a registry asks for credentials (WWW-Authenticate), and who may be told them. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from attrs import field, frozen
from yarl import URL

from cells.outbound.reach import is_loopback
from diego_py.secret import REDACTED, Secret

CHALLENGES_MAX: Final = 10
# What separates is never given back to be matched anew: that would take the square of a header's length.
_SCHEME = re.compile(r"\s*+,?+\s*+([A-Za-z][A-Za-z0-9-]*)(?:\s+|\s*,|$)")
_PARAMETER = re.compile(r'\s*+,?+\s*+([A-Za-z0-9_-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))')


@frozen
class Challenge:
    """One way in that a registry offers: `bearer` or `basic`, in lower case, with its parameters."""

    scheme: str
    parameters: Mapping[str, str]


@frozen
class Credentials:
    """Of one account of one registry."""

    username: str = field(repr=False)
    password: Secret = field(repr=False)

    def basic(self) -> Secret:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password.reveal()}".encode()
        return Secret("Basic " + base64.b64encode(pair).decode())


def read(headers: Iterable[str]) -> Iterator[Challenge]:
    """The challenges of all WWW-Authenticate headers; what cannot be read of one ends that one."""
    for header in headers:
        place = 0
        for _ in range(CHALLENGES_MAX):
            scheme = _SCHEME.match(header, place)
            if scheme is None:
                break
            place, parameters = scheme.end(), {}
            while found := _PARAMETER.match(header, place):
                name, quoted, plain = found.groups()
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain
                place = found.end()
            yield Challenge(scheme[1].lower(), parameters)


def is_confidential(url: URL) -> bool:
    """Whether nobody on the way reads what is sent there: TLS, or this very machine."""
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))


def without(secrets: Iterable[Secret], text: str) -> str:
    """`text` without the secrets that whoever wrote it may have echoed."""
    for secret in secrets:
        for shape in (secret.reveal(), secret.reveal().partition(" ")[2]):
            if shape:
                text = text.replace(shape, REDACTED)
    return text
