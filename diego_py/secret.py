"""A string that must never be printed: passwords, values of environment variables, contents of mounted files.

Everything that turns a value into text gives `***`; only `reveal()` gives the real one.
"""

import hmac
from typing import Final, NoReturn, final

REDACTED: Final = "***"


@final
class Secret:
    """Wraps a str; `repr`, `str`, `format`, pickle and `wire.encode` give `***` (style rule 23).

    It is not a subclass of str: JSON encoders, `str.join` and loggers would read the text past our methods.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wrap `text`. Raises TypeError for anything but a str, so that a Secret is never wrapped twice."""
        if not isinstance(text, str):
            raise TypeError("a Secret wraps a str")
        object.__setattr__(self, "_text", text)

    _text: str

    def reveal(self) -> str:
        """The text itself. Each call is a place to review: a store, a cell or a process that needs it."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, format_spec: str) -> str:
        return format(REDACTED, format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self._text), _bytes(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return (Secret, (REDACTED,))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change")


def _bytes(text: str) -> bytes:
    """Bytes to compare; lone surrogates pass, so that comparing never raises an error which quotes the text."""
    return text.encode("utf-8", "surrogatepass")
