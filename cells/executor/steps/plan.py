"""From a tree of actions to a tree of steps. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

from attrs import evolve, frozen

from cells.executor.steps.codependent import Codependent
from cells.executor.steps.download import Download
from cells.executor.steps.emit_progress import EmitProgress
from cells.executor.steps.own_process import Beside, OwnProcess
from cells.executor.steps.parallel import Parallel
from cells.executor.steps.run import Run
from cells.executor.steps.serial import Serial
from cells.executor.steps.step import Step
from cells.executor.steps.timeout import Timeout
from cells.executor.steps.try_ import Try
from cells.executor.steps.upload import Upload
from cells.executor.transfers.fetch import Checksum
from cells.executor.transfers.transfers import Source
from cells.garden.spec import ProcessSpec
from diego_py.models.actions import (
    Action,
    CodependentAction,
    DownloadAction,
    EmitProgressAction,
    ParallelAction,
    RunAction,
    SerialAction,
    TimeoutAction,
    TryAction,
    UploadAction,
)

Leaf: TypeAlias = Callable[[RunAction, str], Step]
"""What becomes of a run action whose lines are marked so."""


@frozen
class Planner:
    """How the actions of one workload become steps."""

    leaf: Leaf
    spent_s: float = 0.0
    """How long the action has run before this cell process was there."""

    def step(self, action: Action, source: str) -> Step:
        """The step of an action. `source` marks its lines unless it, or one in it, has a mark of its own."""
        kind = action.only()
        source = kind.log_source or source
        match kind:
            case RunAction():
                return self.leaf(kind, source)
            case TimeoutAction():
                return Timeout(self.step(kind.action, source), kind.timeout_ms / 1000, self.spent_s)
            case EmitProgressAction():
                told = (kind.start_message, kind.success_message, kind.failure_message_prefix)
                return EmitProgress(self.step(kind.action, source), source, *told)
            case TryAction():
                return Try(self.step(kind.action, source), source)
            case SerialAction():
                return Serial(self._steps(kind.actions, source))
            case ParallelAction():
                return Parallel(self._steps(kind.actions, source))
            case CodependentAction():
                return Codependent(self._steps(kind.actions, source))
            case DownloadAction():
                return download_of(kind, source)
            case UploadAction():
                return Upload(kind.from_, kind.to, kind.user, kind.artifact, source)
            case _:
                assert_never(kind)

    def _steps(self, actions: tuple[Action, ...], source: str) -> tuple[Step, ...]:
        return tuple(self.step(action, source) for action in actions)


def beside(action: Action, source: str) -> Step:
    """An action whose every process is one beside the container's own."""
    return Planner(_beside).step(action, source)


def alone(action: Action, source: str) -> Step:
    """An action of one process, which is the container's own."""
    return Planner(lambda run, source: OwnProcess()).step(action, source)


def resumed(action: Action, source: str, ran_s: float) -> Step:
    """The same, of a container whose process has run for so long already. It begins in silence."""
    return Planner(lambda run, source: OwnProcess(begun=True), ran_s).step(_unannounced(action), source)


def in_idle(action: Action, sidecars: tuple[Action, ...], source: str, leaves: bool = False) -> Step:
    """An action of any number of processes, and those that run beside it and end with it.

    With `leaves` what they left behind goes on after the success of an action that has no sidecars.
    """
    if leaves and not sidecars:
        return Beside(Planner(lambda run, source: Run(process_of(run, source), leaves=True)).step(action, source))
    if not sidecars:
        return Beside(beside(action, source))
    return Beside(Codependent(tuple(beside(each, source) for each in (action, *sidecars)), ends_well=True))


def own_process(action: Action) -> tuple[RunAction, str] | None:
    """The one process of an action that has but one, and what marks its lines; None when it has several, or none."""
    kind = action.only()
    match kind:
        case RunAction():
            return kind, kind.log_source
        case TimeoutAction() | EmitProgressAction() | TryAction():
            inner = own_process(kind.action)
        case SerialAction() | ParallelAction() | CodependentAction():
            inner = own_process(kind.actions[0]) if len(kind.actions) == 1 else None
        case DownloadAction() | UploadAction():
            inner = None
        case _:
            assert_never(kind)
    return None if inner is None else (inner[0], inner[1] or kind.log_source)


def without_secrets(action: Action) -> Action:
    """An action of one process, less what the process itself is given: enough to plan it again."""
    kind = action.only()
    match kind:
        case RunAction():
            return Action(run=RunAction(path=kind.path, user=kind.user, log_source=kind.log_source))
        case _:
            return _rewrapped(action, without_secrets)


def _unannounced(action: Action) -> Action:
    kind = action.only()
    match kind:
        case RunAction():
            return action
        case EmitProgressAction():
            return Action(emit_progress=evolve(kind, start_message="", action=_unannounced(kind.action)))
        case _:
            return _rewrapped(action, _unannounced)


def _rewrapped(action: Action, change: Callable[[Action], Action]) -> Action:
    """An action of one process with what is in it changed."""
    kind = action.only()
    match kind:
        case RunAction() | DownloadAction() | UploadAction():
            return action
        case TimeoutAction():
            return Action(timeout=evolve(kind, action=change(kind.action)))
        case EmitProgressAction():
            return Action(emit_progress=evolve(kind, action=change(kind.action)))
        case TryAction():
            return Action(try_=evolve(kind, action=change(kind.action)))
        case SerialAction():
            return Action(serial=evolve(kind, actions=tuple(map(change, kind.actions))))
        case ParallelAction():
            return Action(parallel=evolve(kind, actions=tuple(map(change, kind.actions))))
        case CodependentAction():
            return Action(codependent=evolve(kind, actions=tuple(map(change, kind.actions))))
        case _:
            assert_never(kind)


def _beside(run: RunAction, source: str) -> Step:
    return Run(process_of(run, source))


def download_of(action: DownloadAction, source: str) -> Download:
    """A download action as its step."""
    checksum = None
    if action.checksum_algorithm is not None:
        checksum = Checksum(action.checksum_algorithm.value, action.checksum_value)
    wanted = Source(action.from_, action.cache_key, checksum)
    return Download(wanted, action.to, action.user, action.artifact, source)


def process_of(run: RunAction, source: str) -> ProcessSpec:
    """A run action in garden's words."""
    return ProcessSpec(
        path=run.path,
        args=run.args,
        env=tuple((variable.name, variable.value.reveal()) for variable in run.env),
        cwd=run.dir or None,
        user=run.user,
        nofile=run.resource_limits.nofile if run.resource_limits else None,
        log_source=source,
        silent=run.suppress_log_output,
    )
