"""The command check: a process started inside the container exits with 0 in time; what it prints is the answer."""

from __future__ import annotations

from cells.executor.backend import ContainerBackend
from cells.executor.checks.result import CheckResult, cut
from cells.garden.spec import ProcessSpec
from diego_py.call import Call
from diego_py.errors import DiegoError, Fault
from diego_py.models.checks import CHECK_TIMEOUT_MS_DEFAULT, CommandCheck

KIND = "command"


async def check_command(call: Call, garden: ContainerBackend, handle: str, check: CommandCheck) -> CheckResult:
    """Run the command once. Arguments are left out of the target: they may carry what nobody should read."""
    timeout_ms = check.timeout_ms or CHECK_TIMEOUT_MS_DEFAULT
    process = ProcessSpec(path=check.path, args=check.args, user=check.user)
    try:
        ended = await garden.exec(call, handle, process, timeout_ms / 1000)
    except DiegoError as failure:
        root = failure.root
        return CheckResult(KIND, check.path, False, f"{root.code}: {root.message}", ran=root.fault is Fault.APP)
    output = cut(ended.output.strip())
    if ended.timed_out:
        return CheckResult(KIND, check.path, False, f"not done within {timeout_ms} ms; output: {output}")
    if ended.status != 0:
        return CheckResult(KIND, check.path, False, f"exited with status {ended.status}; output: {output}")
    return CheckResult(KIND, check.path, True, output)
