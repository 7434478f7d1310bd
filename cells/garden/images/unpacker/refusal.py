"""Why an archive is not unpacked, and the limits that say so."""

from __future__ import annotations

NAME_BYTES_MAX = 4096
"""Of a whole name or link target, as the kernel has it."""
COMPONENT_BYTES_MAX = 255
ID_MAX = 65_535
"""A container has so many ids; what others own would be nobody's in it."""
MARKS_MAX = 20_000
"""Directories of a layer about which the cell has to be told."""

CORRUPT, UNSAFE, TOO_LARGE, NO_SPACE, UNSUPPORTED, FAILED = (
    "corrupt",
    "unsafe",
    "too_large",
    "no_space",
    "unsupported",
    "failed",
)


class Refused(Exception):
    """The archive is not taken: what kind of reason, the rule or limit in words, and the entry it is about."""

    def __init__(self, kind: str, rule: str, entry: bytes = b"") -> None:
        super().__init__(kind, rule, entry)
        self.kind = kind
        self.rule = rule
        self.entry = entry


class Limits:
    """What one archive may make."""

    __slots__ = ("bytes_max", "cpu_s", "depth_max", "entries_max", "ratio_free_bytes", "ratio_max")

    def __init__(self, given: dict[str, int]) -> None:
        self.bytes_max = given["bytes_max"]
        self.entries_max = given["entries_max"]
        self.depth_max = given["depth_max"]
        self.ratio_max = given["ratio_max"]
        self.ratio_free_bytes = given["ratio_free_bytes"]
        self.cpu_s = given["cpu_s"]

    @property
    def stream_bytes_max(self) -> int:
        """Content, and headers of a usual size."""
        return self.bytes_max + 2048 * self.entries_max
