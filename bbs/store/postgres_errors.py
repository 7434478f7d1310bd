"""What the driver and the network raise, said in our own errors. Pure; the store's border is database.py."""

from __future__ import annotations

import errno
from typing import Any, Final

import asyncpg

from diego_py.errors import CallerError, DatabaseConflict, DatabaseUnavailable, DiegoError

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that a driver call may raise; a TimeoutError is an OSError."""

RETRY_AFTER_S: Final = 1.0


class Collision(DatabaseConflict):
    """Postgres undid this transaction in favour of another one; the same work may succeed at once."""


_COLLISIONS: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,
)
_UNAVAILABLE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # What the driver says of a connection on which the server has said, while it was idle, that it crashes.
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
)


def translate(error: BaseException, op: str) -> DiegoError | None:
    """Our error for `error`, with Postgres's own words as evidence; None if it is a defect of ours."""
    evidence = {"postgres": _words(error)}
    if isinstance(error, _COLLISIONS):
        return Collision(f"{op}: other transactions came first", evidence=evidence, retry_after_s=RETRY_AFTER_S)
    if isinstance(error, asyncpg.LockNotAvailableError):
        told = f"{op}: another transaction keeps a row locked"
        return DatabaseConflict(told, evidence=evidence, retry_after_s=RETRY_AFTER_S)
    closed = isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    if isinstance(error, _UNAVAILABLE) or closed:
        return DatabaseUnavailable(f"{op}: {_problem(error)}", evidence=evidence, retry_after_s=RETRY_AFTER_S)
    hide_row(error)
    return None


def refused_value(error: BaseException) -> CallerError | None:
    """The refusal of a value that no column can hold, such as a name with a NUL: it can only be a caller's."""
    unsendable = type(error) is asyncpg.DataError  # the driver's own; its subclasses come from the server
    if unsendable or isinstance(error, asyncpg.CharacterNotInRepertoireError):
        return CallerError("a value in the request cannot be stored or looked for")
    return None


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended under a statement, so that Postgres's answer to it never came."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError))
    return isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def hide_row(error: BaseException) -> None:
    """Take the failing row out of the error: it holds secrets, and a defect is logged with its traceback."""
    if isinstance(error, asyncpg.PostgresError):
        error.detail = None


def _problem(error: BaseException) -> str:
    match error:
        case asyncpg.QueryCanceledError():
            return "a statement took longer than its limit"
        case asyncpg.InsufficientResourcesError():
            return "Postgres is out of connections, memory or disk"
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            return "Postgres refused the connection"
        case asyncpg.ReadOnlySQLTransactionError():
            return "this Postgres only reads; another one is the primary now"
        case TimeoutError():
            return "Postgres did not answer in time"
        case ConnectionRefusedError() | FileNotFoundError():
            return "no Postgres listens at the configured address"
        case asyncpg.CannotConnectNowError():
            return "Postgres is starting or stopping"
        case _:
            return "the connection to Postgres was lost"


def _words(error: BaseException) -> dict[str, Any]:
    if isinstance(error, asyncpg.PostgresError):
        return {"sqlstate": error.sqlstate, "message": error.args[0] if error.args else ""}
    if isinstance(error, OSError) and error.errno is not None:
        return {"errno": errno.errorcode.get(error.errno, str(error.errno))}
    return {"error": type(error).__name__}
