"""The root of the tree of errors and its registry of codes. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from attrs import frozen

E = TypeVar("E", bound="DiegoError")


class Fault(StrEnum):
    """Who has to act for the failure to go away."""

    CALLER = "caller"
    APP = "app"
    CAPACITY = "capacity"
    PLATFORM = "platform"
    DEPENDENCY = "dependency"


class Outcome(StrEnum):
    """What is true on the cells after the failure. A timeout or a lost connection must say `unknown`."""

    NOT_STARTED = "not_started"
    ROLLED_BACK = "rolled_back"
    PARTIAL = "partial"
    RUNNING = "running"
    UNKNOWN = "unknown"


@frozen
class Next:
    """One thing the reader can do now: what, and the command to run or the page to read."""

    do: str
    run: str | None = None
    href: str | None = None


@frozen
class Step:
    """A named part of a hop's own work and how long it took, in milliseconds."""

    op: str
    ms: float


@frozen
class Frame:
    """One hop's line in the chain. Times are milliseconds; `self_ms` is `elapsed_ms` less what ran below."""

    hop: str
    id: str
    op: str
    code: str
    detail: str = ""
    status: int | None = None
    started_at: str | None = None
    elapsed_ms: float = 0.0
    self_ms: float = 0.0
    attempt: int | None = None
    set_aside: int | None = None
    """On the first frame of an attempt that another one followed: how many frames, this one included, are of it."""
    steps: tuple[Step, ...] = ()


class DiegoError(Exception):
    """Base of the tree. Subclasses state what a program may rely on; instances say what happened.

    Class attributes: `code` (stable, never reused), `title`, `status` (HTTP, of the hop that made it), `fault`,
    `retryable` (the same request may succeed later), `elsewhere` (another cell may do better), `next`.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "The request failed"
    status: ClassVar[int] = 500
    fault: ClassVar[Fault] = Fault.PLATFORM
    retryable: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = True
    next: ClassVar[tuple[Next, ...]] = ()

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        retry_after_s: float | None = None,
        evidence: dict[str, Any] | None = None,
        placement: dict[str, Any] | None = None,
        errors: Sequence[dict[str, str]] = (),
        attempts: Sequence[DiegoError] = (),
        subject: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome = outcome
        self.retry_after_s = retry_after_s
        self.evidence = evidence
        self.placement = placement
        self.errors = tuple(errors)
        self.attempts = tuple(attempts)
        self.subject = subject
        self.frame: Frame | None = None
        self.problem: Any = None
        """The Problem once it was stored here, or the document (a mapping) that this error was rebuilt from."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            other = _REGISTRY.setdefault(cls.code, cls)
            if other is not cls and other.__qualname__ != cls.__qualname__:
                raise TypeError(f"error code {cls.code!r} belongs to {other.__name__}, not to {cls.__name__}")

    @property
    def finished(self) -> bool:
        """Whether its document was stored here: what is answered is then exactly what is stored.

        A document that came from below ends at the hop that sent it; the chain goes on from here.
        """
        return self.problem is not None and not isinstance(self.problem, Mapping)

    def links(self) -> Iterator[DiegoError]:
        """This error and its causes, outermost first."""
        link: BaseException | None = self
        while isinstance(link, DiegoError):
            yield link
            link = link.__cause__

    def find(self, kind: type[E]) -> E | None:
        """The outermost link of this chain that is a `kind`, however many hops away it happened."""
        return next((link for link in self.links() if isinstance(link, kind)), None)

    @property
    def root(self) -> DiegoError:
        """The innermost cause: the one that names the problem."""
        *_, root = self.links()
        return root


def twin(error: E) -> E:
    """The same failure as an exception of its own: each who waited for shared work raises and frames his."""
    other = copy.copy(error)
    other.__cause__ = error.__cause__
    return other


_REGISTRY: dict[str, type[DiegoError]] = {}


def registry() -> dict[str, type[DiegoError]]:
    """Every code and its class, sorted by code: the source of `GET /errors/{code}` and of docs/errors.md."""
    return dict(sorted(_REGISTRY.items()))


EXPLAIN = Next("Read the stored failures of this LRP as chains", run="diego explain {process_guid}")
LOGS = Next("Read what the process wrote", run="diego logs {process_guid}")
CELLS = Next("See what each cell has left", run="diego cells")
DOCTOR = Next("Check the cell's host", run="diego doctor")
AGAIN = Next("Send the same request again with the same Idempotency-Key: it answers with what became of the first one")
