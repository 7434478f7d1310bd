"""A strict reader of RFC 8941 lists of tokens with parameters, as Proxy-Status (RFC 9209) needs it."""

import re

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_INTEGER = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')

Member = tuple[str, dict[str, str | int]]


def read_list(text: str) -> list[Member]:
    """The members of the list, each a token with its parameters. Raises ValueError for anything else."""
    members: list[Member] = []
    rest = text
    while rest:
        token, rest = _take(_TOKEN, rest)
        parameters: dict[str, str | int] = {}
        while rest.startswith(";"):
            key, rest = _take(_KEY, rest[1:].lstrip(" "))
            if not rest.startswith("="):
                raise ValueError(f"parameter {key} has no value")
            parameters[key], rest = _value(rest[1:])
        members.append((token, parameters))
        rest = rest.lstrip(" \t")
        if rest and not (rest.startswith(",") and rest[1:].strip(" \t")):
            raise ValueError(f"no list goes on with {rest[:20]!r}")
        rest = rest[1:].lstrip(" \t")
    return members


def _value(text: str) -> tuple[str | int, str]:
    if text.startswith('"'):
        quoted = _STRING.match(text)
        if quoted is None:
            raise ValueError(f"not a string: {text[:20]!r}")
        return re.sub(r"\\(.)", r"\1", quoted[1]), text[quoted.end() :]
    if text[:1].isdigit() or text.startswith("-"):
        number, rest = _take(_INTEGER, text)
        return int(number), rest
    return _take(_TOKEN, text)


def _take(pattern: re.Pattern[str], text: str) -> tuple[str, str]:
    found = pattern.match(text)
    if found is None:
        raise ValueError(f"{text[:20]!r} does not begin with {pattern.pattern}")
    return found[0], text[found.end() :]
