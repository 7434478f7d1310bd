"""What became of each instance of a request, and how that is told: one document a failed instance. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from attrs import evolve, frozen

from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import DiegoError, E, Fault, Frame, Next, Outcome
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import CellId

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@frozen
class InstanceOutcome:
    """One instance after the cascade: its row as last seen, and the error if it is not where it should be."""

    row: ActualLRP
    error: DiegoError | None = None
    cell_id: CellId | None = None
    """The cell that was tried last."""
    stopping: bool = False
    """Whether it was to end; if that failed its row is left as it is."""
    old: ActualLRP | None = None
    """What it was to replace; if that failed, the old one is recalled."""
    gone: bool = False
    """Whether the cell has said that nothing of the last attempt is left."""
    last: bool = False
    """Whether nothing else was left of its LRP when its row was removed."""


@frozen
class Failure:
    """One failed instance and its document."""

    outcome: InstanceOutcome
    error: DiegoError
    document: Problem


@frozen
class Told:
    """The error to raise and the document of each failed instance; the first one is the document answered."""

    error: DiegoError
    failures: tuple[Failure, ...]

    def evolved(self, **members: Any) -> Told:
        """The same with other members of the documents."""
        return evolve(self, failures=tuple(evolve(f, document=evolve(f.document, **members)) for f in self.failures))


def tell(
    call: Call,
    outer: type[DiegoError],
    message: str,
    outcomes: Sequence[InstanceOutcome],
    about: Mapping[str, Any] = NOTHING,
    partial: bool = False,
) -> Told:
    """Close the chain of every failed instance with the frame of the hop that `call` is in.

    The first failed instance speaks for the request; its document lists all instances. Needs at least one failure.
    `about` is said of the request in each document's subject; `partial`: some of it is true, besides these outcomes.
    """
    succeeded = partial or any(outcome.error is None for outcome in outcomes)
    all_told = _together([outcome_of(outcome.error) for outcome in outcomes if outcome.error is not None])
    everybody = tuple(_line(outcome) for outcome in outcomes) if len(outcomes) > 1 else ()
    told: list[Failure] = []
    for outcome in outcomes:
        if outcome.error is None:
            continue
        error = call.framed(outer(message))
        error.__cause__ = outcome.error
        own = outcome_of(outcome.error) if told else all_told
        error.outcome = Outcome.PARTIAL if succeeded else own
        document = chain.problem(error, call, {**subject(outcome.row), **about})
        told.append(Failure(outcome, error, evolve(document, instances=() if told else everybody)))
    return Told(told[0].error, tuple(told))


def outcome_of(error: DiegoError) -> Outcome:
    """What is true on the cells after the error, as the outermost link says that knows."""
    return next((link.outcome for link in error.links() if link.outcome is not None), Outcome.NOT_STARTED)


def outcome_of_all(error: DiegoError, attempts: Sequence[DiegoError]) -> Outcome:
    """What is true after `error` ended a request of several attempts: also of those that another one followed."""
    said = [error] if any(link.outcome is not None for link in error.links()) else []
    return _together([outcome_of(each) for each in (*attempts, *said)])


@contextmanager
def unknown_unless_said() -> Iterator[None]:
    """Around what may have changed something: who fails in it and does not say what is true does not know."""
    with _unless_said(Outcome.UNKNOWN):
        yield


@contextmanager
def not_started_unless_said() -> Iterator[None]:
    """Around the first transaction of a request: who fails in it and does not say otherwise has changed nothing."""
    with _unless_said(Outcome.NOT_STARTED):
        yield


@contextmanager
def _unless_said(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except DiegoError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and all(link.outcome is None for link in error.links()):
            error.outcome = outcome
        raise


def is_gone(error: DiegoError) -> bool:
    """Whether the cell has said, by the error of one attempt, that it undid all that it had begun."""
    return outcome_of(error) is Outcome.ROLLED_BACK


def subject(row: ActualLRP) -> dict[str, Any]:
    """What a document is about."""
    return {
        "kind": "lrp",
        "guid": row.process_guid,
        "index": row.index,
        "instance_guid": row.instance_guid,
        "domain": row.domain,
    }


def given_up(row: ActualLRP, crash_count: int) -> Next:
    """What a user can do about an instance that nobody else starts again."""
    again = f"diego restart {row.process_guid} {row.index}"
    return Next(f"Nobody starts it again after {crash_count} crashes; mend the app, then start it anew", run=again)


def after_crash(members: Mapping[str, Any], row: ActualLRP) -> dict[str, Any]:
    """What the document of a crash says besides, once the row is CRASHED: when the next start is, or that none is."""
    if row.next_attempt_at is not None:
        return {"next_attempt_at": instant(row.next_attempt_at)}
    advice = given_up(row, row.crash_count)
    others = members.get("next")
    return {"next": [{"do": advice.do, "run": advice.run}, *(others if isinstance(others, list) else ())]}


def is_no_crash(members: Mapping[str, Any]) -> bool:
    """Whether the document of an end says that neither the app nor what was asked for is at fault."""
    return members.get("fault") in (Fault.PLATFORM, Fault.DEPENDENCY, Fault.CAPACITY)


def instant(at: datetime) -> str:
    """A time as documents write it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_crash(error: DiegoError) -> bool:
    """Whether the app itself failed, after a process of it ran.

    Failing to create a container never counts, nor does an app that somebody stopped while it started.
    """
    return error.root.code.startswith("app.") and error.root.fault is Fault.APP


def framed_by_cell(error: E, cell_id: str | None) -> E:
    """The error as the cell would tell it, whose report said it by leaving something out."""
    error.frame = Frame(
        hop="rep", id=str(cell_id), op="cell_report", code=error.code, detail=error.message, status=error.status
    )
    return error


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """What is true of a request whose instances failed so."""
    different = set(outcomes)
    if len(different) == 1:
        return outcomes[0]
    if Outcome.UNKNOWN in different:
        return Outcome.UNKNOWN
    return Outcome.ROLLED_BACK if different == {Outcome.NOT_STARTED, Outcome.ROLLED_BACK} else Outcome.PARTIAL


def _line(outcome: InstanceOutcome) -> dict[str, Any]:
    row = outcome.row
    line: dict[str, Any] = {"index": row.index, "instance_guid": row.instance_guid, "revision": row.revision}
    if outcome.old is not None and outcome.error is not None:
        line["serving"] = {"instance_guid": outcome.old.instance_guid, "revision": outcome.old.revision}
    if outcome.error is None:
        return line | {"state": str(row.state), "cell_id": row.cell_id}
    root = outcome.error.root
    return line | {"state": "FAILED", "code": root.code, "detail": root.message}
