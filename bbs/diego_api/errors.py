"""Our errors as Diego's: a type and a message inside of an answer that is 200. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from diego_py.errors import (
    BudgetSpent,
    CallerError,
    ConflictError,
    DatabaseUnavailable,
    DiegoError,
    IllegalTransition,
    InvalidSpec,
    MalformedProtobuf,
    NotFound,
    Saturated,
    ShuttingDown,
    StillBeingDeleted,
    TaskNotCompleted,
    UnsupportedField,
)


class ErrorType(IntEnum):
    """Types that this wire answers with."""

    UNKNOWN_ERROR = 0
    INVALID_REQUEST = 4
    INVALID_PROTOBUF_MESSAGE = 6
    INVALID_STATE_TRANSITION = 9
    RESOURCE_CONFLICT = 11
    RESOURCE_EXISTS = 12
    RESOURCE_NOT_FOUND = 13
    ACTUAL_LRP_CANNOT_BE_CLAIMED = 15
    ACTUAL_LRP_CANNOT_BE_STARTED = 16
    ACTUAL_LRP_CANNOT_BE_CRASHED = 17
    ACTUAL_LRP_CANNOT_BE_FAILED = 18
    ACTUAL_LRP_CANNOT_BE_REMOVED = 19
    RUNNING_ON_DIFFERENT_CELL = 24
    TIMEOUT = 31


class Refusal(Exception):
    """What this wire refuses by itself, in Diego's terms."""

    def __init__(self, type: ErrorType, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message

    def __reduce__(self) -> tuple[type[Refusal], tuple[ErrorType, str]]:
        return (Refusal, (self.type, self.message))


_TYPES: Final[tuple[tuple[type[DiegoError], ErrorType], ...]] = (
    (MalformedProtobuf, ErrorType.INVALID_PROTOBUF_MESSAGE),
    (NotFound, ErrorType.RESOURCE_NOT_FOUND),
    (StillBeingDeleted, ErrorType.RESOURCE_CONFLICT),
    (TaskNotCompleted, ErrorType.INVALID_STATE_TRANSITION),
    (IllegalTransition, ErrorType.INVALID_STATE_TRANSITION),
    (BudgetSpent, ErrorType.TIMEOUT),
)
"""The first one that fits counts."""

NOT_READY: Final = (DatabaseUnavailable, Saturated, ShuttingDown)
"""Answered with a bare 503: nothing of the request was done."""
ANSWER_MESSAGE_MAX: Final = 16 * 1024


def refusal_of(error: DiegoError) -> Refusal:
    """The error as its innermost cause says it."""
    root = error.root
    message = root.message[:ANSWER_MESSAGE_MAX]
    if isinstance(root, (InvalidSpec, UnsupportedField)):
        return Refusal(ErrorType.INVALID_REQUEST, _fields_told(root)[:ANSWER_MESSAGE_MAX])
    for kind, type_ in _TYPES:
        if isinstance(root, kind):
            return Refusal(type_, message)
    if isinstance(root, ConflictError):
        return Refusal(ErrorType.RESOURCE_EXISTS if root.code in _EXISTS else ErrorType.RESOURCE_CONFLICT, message)
    return Refusal(ErrorType.INVALID_REQUEST if isinstance(root, CallerError) else ErrorType.UNKNOWN_ERROR, message)


def invalid(field: str) -> Refusal:
    """The refusal of one field."""
    return Refusal(ErrorType.INVALID_REQUEST, f"Invalid field: {field}")


_EXISTS: Final = frozenset({"already_exists", "task_exists"})


def _fields_told(error: DiegoError) -> str:
    """Diego's `Invalid field: X, Invalid field: Y`, and in brackets what X may be."""
    if not error.errors:
        return error.message
    return ", ".join(f"Invalid field: {_name(bad['pointer'])} ({bad['detail']})" for bad in error.errors)


def _name(pointer: str) -> str:
    """The field of a pointer: Diego names the innermost one, without where it is."""
    names = [name for name in pointer.split("/") if name and not name.isdigit()]
    return _NAMES.get(names[-1], names[-1]) if names else "body"


_NAMES: Final = {"definition": "task_definition", "tcp": "tcp_check", "http": "http_check"}
"""Fields that have another name there."""
