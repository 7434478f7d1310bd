"""What a check says. Pure."""

from __future__ import annotations

from attrs import frozen

ANSWER_CHARACTERS_MAX = 2000


@frozen
class CheckResult:
    """One check, once. `ran` is False when the host could not carry it out, which says nothing about the app."""

    kind: str
    target: str
    ok: bool
    answer: str
    ran: bool = True


def cut(text: str) -> str:
    """An answer short enough for a failure document; the end is what matters."""
    return text if len(text) <= ANSWER_CHARACTERS_MAX else "[...]" + text[-ANSWER_CHARACTERS_MAX:]
