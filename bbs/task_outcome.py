"""What a failed attempt at a task means for it: whether it may be tried again, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from bbs.store.task_moves import REJECTIONS_MAX, subject
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import DiegoError, Fault, Outcome, TaskFailed
from diego_py.models.task import Task


@frozen
class Verdict:
    """What is known after an attempt failed."""

    never_began: bool
    """No process of the task ran, and none will under this instance_guid."""
    ended: bool
    """A process of it may have run; nothing of it is left on the cell."""
    counted: bool
    """Whether it counts towards giving the task up. Waiting for room does not."""
    hopeless: bool
    """Another attempt would fail alike: it is the app's or the caller's fault, wherever it is tried."""
    elsewhere: bool
    """Another cell may do better, now."""
    claim_id: str | None
    """Of the start that failed; None if it was not even begun."""
    reason: str

    def gives_up(self, task: Task) -> bool:
        """Whether this rejection is one too many."""
        return self.hopeless or (self.counted and task.rejection_count >= REJECTIONS_MAX)


def verdict_of(error: DiegoError) -> Verdict:
    """What `error`, which ended an attempt, means.

    A failure that does not say that nothing was started may have started something; only the row tells then whether
    the attempt was claimed.
    """
    root = error.root
    outcome = outcome_of(error)
    return Verdict(
        never_began=outcome is Outcome.NOT_STARTED,
        ended=outcome is Outcome.ROLLED_BACK,
        counted=root.fault is not Fault.CAPACITY,
        hopeless=root.fault in (Fault.APP, Fault.CALLER) and not root.elsewhere,
        elsewhere=root.elsewhere,
        claim_id=_claim_id(error),
        reason=root.message,
    )


def outcome_of(error: DiegoError) -> Outcome:
    """What is true after `error`, as the outermost hop that knew it said. Nobody said: nobody knows."""
    return next((link.outcome for link in error.links() if link.outcome is not None), Outcome.UNKNOWN)


def _claim_id(error: DiegoError) -> str | None:
    """As the cell said it in the document that the error was rebuilt from."""
    for link in error.links():
        subject = link.problem.get("subject") if isinstance(link.problem, Mapping) else None
        if isinstance(subject, Mapping) and isinstance(subject.get("claim_id"), str):
            return str(subject["claim_id"])
    return None


def tell(call: Call, message: str, task: Task, error: DiegoError) -> tuple[TaskFailed, Problem]:
    """Close the chain of a failed task with the frame of the hop that `call` is in: the error, and its document."""
    outer = call.framed(TaskFailed(message))
    outer.__cause__ = error
    outer.outcome = outcome_of(error)
    return outer, chain.problem(outer, call, subject(task))


def retold(call: Call, message: str, task: Task) -> DiegoError:
    """The stored failure of a completed task as the answer to whoever waited for it: one hop more, the same cause."""
    cause = _cause(task)
    outer = call.framed(TaskFailed(message))
    outer.__cause__ = cause
    outer.outcome = cause.outcome
    document = chain.problem(outer, call, subject(task))
    stored = (task.failure or {}).get("instance")
    outer.problem = evolve(document, instance=stored if isinstance(stored, str) else None)
    return outer


def _cause(task: Task) -> DiegoError:
    document: dict[str, Any] = dict(task.failure or {})
    try:
        cause = chain.rebuild(document)
    except ValueError:  # its document was pruned, or is of another version
        cause = TaskFailed(task.failure_reason or "no reason is known", outcome=Outcome.UNKNOWN)
    cause.problem = None
    return cause
