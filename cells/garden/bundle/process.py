"""The user process: who, what, where, with which environment, capabilities and limits. Also used for extra ones."""

from __future__ import annotations

from cells.garden.bundle import capabilities, rlimits
from cells.garden.bundle.plan import Config, Plan
from cells.garden.spec import Env, Window
from cells.garden.users import Identity

PATH_ROOT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATH_USER = "/usr/local/bin:/usr/bin:/bin"


def apply(config: Config, plan: Plan) -> Config:
    limits = rlimits.of(plan.limits, plan.nofile_max)
    argv = (plan.path, *plan.args)
    described = describe(plan.identity, argv, plan.env, plan.cwd, limits, plan.apparmor_profile, plan.privileges)
    return {**config, "process": described}


def describe(
    identity: Identity,
    argv: tuple[str, ...],
    env: Env,
    cwd: str,
    limits: list[Config],
    apparmor_profile: str | None,
    privileges: tuple[str, ...] | None = None,
) -> Config:
    """The OCI `process` object. No terminal; no new privileges ever, but in a privileged container."""
    # Left out, not empty: crun would write an empty one to the kernel, which refuses it.
    confined = {} if apparmor_profile is None else {"apparmorProfile": apparmor_profile}
    return {
        **confined,
        "terminal": False,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": list(argv),
        "env": environment(identity, env),
        "cwd": cwd,
        "capabilities": capabilities.of(identity.uid, capabilities.ROOT if privileges is None else privileges),
        "rlimits": limits,
        "noNewPrivileges": privileges is None,
    }


def with_terminal(described: Config, window: Window) -> Config:
    """The same process, at a terminal of this size."""
    return {**described, "terminal": True, "consoleSize": {"height": window.rows, "width": window.columns}}


def environment(identity: Identity, given: Env) -> list[str]:
    """PATH, HOME and USER when they are not given; of a name given twice the last value."""
    values = {
        "PATH": PATH_ROOT if identity.uid == 0 else PATH_USER,
        "HOME": identity.home,
        "USER": identity.name,
        **dict(given),
    }
    return [f"{name}={value}" for name, value in values.items()]
