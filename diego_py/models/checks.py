"""How a cell finds out whether an instance is healthy. Diego: models/check_definition.go; `command` is our own."""

from typing import Annotated, ClassVar, Final, TypeAlias

import attrs

from diego_py.models.actions import ARGUMENT_BYTES_MAX
from diego_py.models.fields import DurationMs, Label, Limits, NetworkPort, RequiredText, Text

CHECK_TIMEOUT_MS_DEFAULT: Final = 1000
"""Diego: executor containerstore, default of connect_timeout_ms and request_timeout_ms."""
CHECKS_MAX: Final = 16
"""Checks of one kind (liveness, readiness) of one instance."""


@attrs.frozen(kw_only=True)
class TCPCheck:
    """Passes when a connection to the container's port opens."""

    port: NetworkPort
    connect_timeout_ms: DurationMs = CHECK_TIMEOUT_MS_DEFAULT
    """0 is the cell's default."""
    interval_ms: DurationMs = 0
    """Between two checks once healthy; 0 is the cell's default."""


@attrs.frozen(kw_only=True)
class HTTPCheck:
    """Passes when GET answers 200 over plain HTTP."""

    port: NetworkPort
    path: Text = "/"
    request_timeout_ms: DurationMs = CHECK_TIMEOUT_MS_DEFAULT
    """0 is the cell's default."""
    interval_ms: DurationMs = 0
    """Between two checks once healthy; 0 is the cell's default."""


@attrs.frozen(kw_only=True)
class CommandCheck:
    """Passes when a process started in the container exits with 0 in time."""

    path: RequiredText
    args: tuple[Annotated[str, Limits(bytes_max=ARGUMENT_BYTES_MAX)], ...] = ()
    user: Label = ""
    """Empty: the image's user, as in a RunAction."""
    timeout_ms: DurationMs = CHECK_TIMEOUT_MS_DEFAULT
    """0 is the cell's default."""
    interval_ms: DurationMs = 0
    """Between two checks once healthy; 0 is the cell's default."""


AnyCheck: TypeAlias = TCPCheck | HTTPCheck | CommandCheck


@attrs.frozen(kw_only=True)
class Check:
    """Exactly one kind of check; on the wire an object with that one key, `{"tcp": {…}}`."""

    ONE_OF: ClassVar[bool] = True

    tcp: TCPCheck | None = None
    http: HTTPCheck | None = None
    command: CommandCheck | None = None

    def only(self) -> AnyCheck:
        """The one kind that is set. Raises ValueError if none or several are: `validate` was not asked first."""
        kinds: tuple[AnyCheck | None, ...] = (self.tcp, self.http, self.command)
        present = [kind for kind in kinds if kind is not None]
        if len(present) != 1:
            raise ValueError(f"a check has exactly one kind, this one has {len(present)}")
        return present[0]


Checks: TypeAlias = Annotated[tuple[Check, ...], Limits(items_max=CHECKS_MAX)]


@attrs.frozen(kw_only=True)
class CheckDefinition:
    """The checks of an LRP. All `checks` must pass for the instance to become and to stay healthy."""

    checks: Checks = ()
    readiness_checks: Checks = ()
    """A failing one takes the instance out of routing and does not stop it."""
    log_source: Label = "HEALTH"
