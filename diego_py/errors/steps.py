"""What can go wrong with the steps of a workload's actions."""

from __future__ import annotations

from diego_py.errors.base import LOGS, DiegoError, Fault, Next


class ActionTimedOut(DiegoError):
    """A `timeout` action took longer than its `timeout_ms`; `evidence.timeout_ms` is that limit."""

    code = "app.action_timeout"
    title = "The action took too long"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS, Next("Raise timeout_ms of the action, or make it do less"))


class CodependentExited(DiegoError):
    """One of the actions that need each other ended, if well; the others were ended then."""

    code = "app.codependent_exited"
    title = "A codependent action exited"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS, Next("Actions of `codependent` have to run on; use `parallel` for those that end"))


class ProgramLost(DiegoError):
    """The cell process was restarted, and several processes ran in the container, which only it held together.

    A workload of a single process goes on when its cell is restarted.
    """

    code = "executor.program_lost"
    title = "The cell process was restarted, and the workload could not be taken up"
    retryable = True
    next = (LOGS, Next("Nothing: the instance is placed anew"))


class ResultMissing(DiegoError):
    """The action ended well, and the container has no file at `result_file`, or one that cannot be read."""

    code = "app.result_missing"
    title = "The result file could not be read"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Have the action write the file that result_file names, or leave result_file empty"), LOGS)


class ResultTooLarge(DiegoError):
    """The file at `result_file` is larger than a result may be; `evidence` has both sizes in bytes."""

    code = "app.result_too_large"
    title = "The result file is too large"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Write less to the result file; keep what is large in a service and its name in the file"),)
