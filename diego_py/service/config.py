"""Configuration: one JSON file, read once, strict, into one frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from diego_py import wire

T = TypeVar("T")


class ConfigError(ValueError):
    """The configuration cannot be used; the message names every bad setting."""


def load(kind: type[T], path: Path) -> T:
    """The configuration in `path` as a `kind`. Raises ConfigError for unreadable files, unknown or wrong settings."""
    try:
        return wire.decode(kind, path.read_bytes())
    except OSError as unreadable:
        raise ConfigError(f"{path}: {unreadable.strerror}") from unreadable
    except wire.MalformedJSON as malformed:
        raise ConfigError(f"{path}: {malformed}") from malformed
    except wire.InvalidFields as invalid:
        told = "; ".join(f"{error.pointer}: {error.detail}" for error in invalid.errors)
        raise ConfigError(f"{path}: {told}") from invalid
    except ValueError as contradiction:
        raise ConfigError(f"{path}: {contradiction}") from contradiction
