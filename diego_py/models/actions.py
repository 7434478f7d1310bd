"""What a container executes: a tree of actions. Diego: models/actions.go; semantics in executor/depot/steps."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Final, TypeAlias

import attrs

from diego_py.models.fields import (
    DUPLICATE,
    DURATION_MS_MAX,
    INT64_MAX,
    INVALID,
    LIST_ITEMS_MAX,
    REQUIRED,
    SECRET_BYTES_MAX,
    FieldError,
    HttpUrl,
    Label,
    Limits,
    Name,
    RequiredText,
    Text,
)
from diego_py.secret import Secret

ARGUMENT_BYTES_MAX: Final = 128 * 1024
"""One argument of a process: the kernel refuses longer ones at exec (MAX_ARG_STRLEN)."""
ENVIRONMENT_NAME: Final = re.compile(r"[^=\0]+")


class ChecksumAlgorithm(StrEnum):
    """How a download is checked. Diego: models/actions.go."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"


@attrs.frozen(kw_only=True)
class EnvironmentVariable:
    """One variable of a process. Values never print."""

    name: Annotated[
        str,
        Limits(bytes_min=1, bytes_max=4096, pattern=ENVIRONMENT_NAME, pattern_name="a name without '='"),
    ]
    value: Annotated[Secret, Limits(bytes_max=SECRET_BYTES_MAX)] = attrs.field(default=Secret(""), repr=False)


Environment: TypeAlias = Annotated[tuple[EnvironmentVariable, ...], Limits(items_max=LIST_ITEMS_MAX)]


@attrs.frozen(kw_only=True)
class ResourceLimits:
    """rlimits of one process; None leaves the cell's default."""

    nofile: Annotated[int, Limits(minimum=0, maximum=INT64_MAX)] | None = None
    """Open files, soft and hard."""
    nproc: Annotated[int, Limits(minimum=0, maximum=INT64_MAX)] | None = None
    """Accepted and ignored, as in Diego; `max_pids` limits the container."""


@attrs.frozen(kw_only=True)
class RunAction:
    """Execute one process; fails unless it exits with 0. Where it is silent, what its image says holds."""

    path: Text = ""
    """Empty, for the `run` that is `action` itself: the image's entry point, with `args` or else its command."""
    args: tuple[Annotated[str, Limits(bytes_max=ARGUMENT_BYTES_MAX)], ...] = ()
    dir: Text = ""
    """Working directory; empty is the image's, or else the user's home directory."""
    env: Environment = ()
    resource_limits: ResourceLimits | None = None
    user: Label = ""
    """A name of the image's passwd, `UID` or `UID:GID`. Empty: the image's user, or else root of the container."""
    log_source: Label = ""
    suppress_log_output: bool = False

    def rules(self) -> Iterator[FieldError]:
        """A variable may be set once."""
        yield from duplicate_names(self.env, "/env")


@attrs.frozen(kw_only=True)
class DownloadAction:
    """Fetch a URL, through the cell's cache if it has a key, and unpack it into the container."""

    artifact: Label = ""
    from_: HttpUrl
    """On the wire `from`: the URL of a tar, tgz or zip."""
    to: RequiredText
    cache_key: Text = ""
    log_source: Label = ""
    user: Name
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_value: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """An algorithm without a value, or a value without an algorithm, checks nothing."""
        yield from checksum_pair(self.checksum_algorithm, self.checksum_value)


@attrs.frozen(kw_only=True)
class UploadAction:
    """Send a file of the container to a URL by POST."""

    artifact: Label = ""
    from_: RequiredText
    """On the wire `from`: a path in the container."""
    to: HttpUrl
    log_source: Label = ""
    user: Name


@attrs.frozen(kw_only=True)
class TimeoutAction:
    """Cancel the inner action when it takes longer than `timeout_ms`."""

    action: "Action"
    timeout_ms: Annotated[int, Limits(minimum=1, maximum=DURATION_MS_MAX)]
    log_source: Label = ""


@attrs.frozen(kw_only=True)
class EmitProgressAction:
    """Write lines to the app's log before and after the inner action."""

    action: "Action"
    start_message: Text = ""
    success_message: Text = ""
    failure_message_prefix: Text = ""
    log_source: Label = ""


@attrs.frozen(kw_only=True)
class TryAction:
    """Run the inner action and swallow its failure."""

    action: "Action"
    log_source: Label = ""


@attrs.frozen(kw_only=True)
class ParallelAction:
    """Run all, wait for all, fail if one failed."""

    actions: "tuple[Action, ...]"
    log_source: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """At least one action."""
        yield from at_least_one(self.actions)


@attrs.frozen(kw_only=True)
class SerialAction:
    """Run in order, stop at the first failure."""

    actions: "tuple[Action, ...]"
    log_source: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """At least one action."""
        yield from at_least_one(self.actions)


@attrs.frozen(kw_only=True)
class CodependentAction:
    """Run all; when one fails, cancel the rest."""

    actions: "tuple[Action, ...]"
    log_source: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """At least one action."""
        yield from at_least_one(self.actions)


AnyAction: TypeAlias = (
    RunAction
    | DownloadAction
    | UploadAction
    | TimeoutAction
    | EmitProgressAction
    | TryAction
    | ParallelAction
    | SerialAction
    | CodependentAction
)


@attrs.frozen(kw_only=True)
class Action:
    """Exactly one kind of action; on the wire an object with that one key, `{"run": {…}}`."""

    ONE_OF: ClassVar[bool] = True

    run: RunAction | None = None
    download: DownloadAction | None = None
    upload: UploadAction | None = None
    timeout: TimeoutAction | None = None
    emit_progress: EmitProgressAction | None = None
    try_: TryAction | None = None
    """On the wire `try`."""
    parallel: ParallelAction | None = None
    serial: SerialAction | None = None
    codependent: CodependentAction | None = None

    def only(self) -> AnyAction:
        """The one kind that is set. Raises ValueError if none or several are: `validate` was not asked first."""
        kinds: tuple[AnyAction | None, ...] = (
            self.run,
            self.download,
            self.upload,
            self.timeout,
            self.emit_progress,
            self.try_,
            self.parallel,
            self.serial,
            self.codependent,
        )
        present = [kind for kind in kinds if kind is not None]
        if len(present) != 1:
            raise ValueError(f"an action has exactly one kind, this one has {len(present)}")
        return present[0]


def runs_of(action: Action, at: str) -> Iterator[tuple[str, RunAction]]:
    """Every process of a tree of actions, valid or not, and where it is. The tree is as deep as the JSON it came as."""
    for attribute in attrs.fields(Action):
        kind, pointer = getattr(action, attribute.name), f"{at}/{attribute.name.rstrip('_')}"
        match kind:
            case RunAction():
                yield pointer, kind
            case TimeoutAction() | EmitProgressAction() | TryAction():
                yield from runs_of(kind.action, f"{pointer}/action")
            case ParallelAction() | SerialAction() | CodependentAction():
                for position, inner in enumerate(kind.actions):
                    yield from runs_of(inner, f"{pointer}/actions/{position}")


def duplicate_names(variables: tuple[EnvironmentVariable, ...], pointer: str) -> Iterator[FieldError]:
    """An error for each variable whose name is there already: which value wins would be chance."""
    seen: set[str] = set()
    for position, variable in enumerate(variables):
        if variable.name in seen:
            yield FieldError(f"{pointer}/{position}/name", DUPLICATE, "this variable is set already")
        seen.add(variable.name)


def checksum_pair(algorithm: ChecksumAlgorithm | None, value: str) -> Iterator[FieldError]:
    """Both or neither. Diego: models/actions.go validateCheckSum."""
    if algorithm is not None and not value:
        yield FieldError("/checksum_value", REQUIRED, "checksum_algorithm needs a checksum_value")
    if algorithm is None and value:
        yield FieldError("/checksum_algorithm", REQUIRED, "checksum_value needs a checksum_algorithm")


def at_least_one(actions: tuple[Action, ...]) -> Iterator[FieldError]:
    """Diego: models/actions.go, an empty list is an invalid action."""
    if not actions:
        yield FieldError("/actions", INVALID, "must have at least one action")
