"""Numbers and text as tar headers write them. Every function raises Refused for what is neither."""

from __future__ import annotations

from cells.garden.images.unpacker.refusal import CORRUPT, Refused

MTIME_MAX = 1 << 34
DECIMAL_DIGITS_MAX = 18


def text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def number(field: bytes, what: str, signed: bool = False) -> int:
    """Octal digits, or a big number with the first bit set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if value < 0 and signed:
            return 0
    else:
        digits = field.strip(b" \0")
        if b"\0" in digits:
            digits = digits.split(b"\0", 1)[0].strip(b" ")
        if any(digit not in b"01234567" for digit in digits):
            raise Refused(CORRUPT, f"a header's {what} is no number")
        value = int(digits, 8) if digits else 0
    if not 0 <= value < 1 << 63:
        raise Refused(CORRUPT, f"a header's {what} is out of range")
    return value


def decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > DECIMAL_DIGITS_MAX:
        raise Refused(CORRUPT, "a number of an extended header is none")
    return int(digits)


def time(digits: bytes) -> int:
    """Seconds; those before 1970 are 0."""
    whole = digits.split(b".", 1)[0]
    if whole.startswith(b"-"):
        return 0
    return min(decimal(whole), MTIME_MAX)
