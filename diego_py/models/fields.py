"""What can be wrong with one field, and the limits that nouns put on their fields (style rule 19).

Limits are written in a field's type, `Annotated[int, Limits(minimum=0)]`; `validation.validate` checks them and
`wire.schema` publishes them.
"""

import re
from typing import Annotated, Any, Final, TypeAlias

import attrs

from diego_py.models.identifiers import GUID_PATTERN, CellId, Domain, InstanceGuid, ProcessGuid, TaskGuid

REQUIRED: Final = "required"
INVALID: Final = "invalid"
OUT_OF_RANGE: Final = "out_of_range"
TOO_LONG: Final = "too_long"
UNKNOWN_FIELD: Final = "unknown_field"
UNSUPPORTED_FIELD: Final = "unsupported_field"
EXACTLY_ONE: Final = "exactly_one"
DUPLICATE: Final = "duplicate"
WRONG_TYPE: Final = "wrong_type"


@attrs.frozen
class FieldError:
    """One bad field of a request. `detail` never quotes the value: it may be a secret."""

    pointer: str
    """JSON pointer (RFC 6901) to the field, such as `/action/run/user`; empty for the whole body."""
    code: str
    """One of the constants of this module; programs match on it."""
    detail: str
    """What is wrong and what is allowed, for people."""

    def below(self, pointer: str) -> "FieldError":
        """The same error seen from a noun that holds this one at `pointer`."""
        return attrs.evolve(self, pointer=pointer + self.pointer)


def pointer_to(*names: str | int) -> str:
    """A JSON pointer from names and positions, escaped as RFC 6901 says; a client's own keys are cut when long."""
    return "".join("/" + str(name)[:POINTER_NAME_MAX].replace("~", "~0").replace("/", "~1") for name in names)


POINTER_NAME_MAX: Final = 100
"""Characters of one name in a pointer."""


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of one value. None means that this bound is not checked."""

    minimum: int | None = None
    maximum: int | None = None
    bytes_min: int = 0
    bytes_max: int | None = None
    """UTF-8 bytes of a string; for a map, bytes of its JSON."""
    items_max: int | None = None
    pattern: re.Pattern[str] | None = None
    pattern_name: str = ""
    """What the pattern means, for the error: `must be <pattern_name>`."""
    unique: bool = False
    """Whether a list refuses a value that is there already."""


TEXT_BYTES_MAX: Final = 4096
"""Strings without a limit of their own, in bytes; a Linux path fits (PATH_MAX)."""
NAME_BYTES_MAX: Final = 255
LIST_ITEMS_MAX: Final = 1000
"""Lists and maps without a limit of their own, in items."""
NETWORK_PORT_MAX: Final = 65_535
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
ANNOTATION_BYTES_MAX: Final = 10 * 1024
"""Diego: models/desired_lrp.go maximumAnnotationLength."""
ROUTES_BYTES_MAX: Final = 128 * 1024
"""Diego: models/desired_lrp.go maximumRouteLength."""
SECRET_BYTES_MAX: Final = 128 * 1024
"""One environment value: the kernel refuses longer ones at exec (MAX_ARG_STRLEN)."""
MOUNTED_FILES_BYTES_MAX: Final = 1024 * 1024
"""Contents of all volume_mounted_files together. Diego: models/desired_lrp.go."""
DURATION_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""Any timeout or interval: a week."""

JsonValue: TypeAlias = Any
"""A JSON value that we carry and do not read."""

URL_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
HTTP_URL_PATTERN: Final = re.compile(r"https?://[^\s/]+\S*")

_GUID: Final = Limits(
    bytes_min=1, bytes_max=NAME_BYTES_MAX, pattern=GUID_PATTERN, pattern_name="letters, digits, '_' and '-'"
)
ProcessGuidField: TypeAlias = Annotated[ProcessGuid, _GUID]
InstanceGuidField: TypeAlias = Annotated[InstanceGuid, _GUID]
TaskGuidField: TypeAlias = Annotated[TaskGuid, _GUID]
CellIdField: TypeAlias = Annotated[CellId, Limits(bytes_min=1, bytes_max=NAME_BYTES_MAX)]
DomainField: TypeAlias = Annotated[Domain, Limits(bytes_min=1, bytes_max=NAME_BYTES_MAX)]

Name: TypeAlias = Annotated[str, Limits(bytes_min=1, bytes_max=NAME_BYTES_MAX)]
Label: TypeAlias = Annotated[str, Limits(bytes_max=NAME_BYTES_MAX)]
"""A short string that may be empty."""
Text: TypeAlias = Annotated[str, Limits(bytes_max=TEXT_BYTES_MAX)]
RequiredText: TypeAlias = Annotated[str, Limits(bytes_min=1, bytes_max=TEXT_BYTES_MAX)]
Url: TypeAlias = Annotated[
    str, Limits(bytes_min=1, bytes_max=TEXT_BYTES_MAX, pattern=URL_PATTERN, pattern_name="a URL with a scheme")
]
HttpUrl: TypeAlias = Annotated[
    str, Limits(bytes_min=1, bytes_max=TEXT_BYTES_MAX, pattern=HTTP_URL_PATTERN, pattern_name="an http(s) URL")
]
"""Where cells fetch and send files."""
Count: TypeAlias = Annotated[int, Limits(minimum=0, maximum=INT32_MAX)]
Megabytes: TypeAlias = Annotated[int, Limits(minimum=0, maximum=INT32_MAX)]
DurationMs: TypeAlias = Annotated[int, Limits(minimum=0, maximum=DURATION_MS_MAX)]
NetworkPort: TypeAlias = Annotated[int, Limits(minimum=1, maximum=NETWORK_PORT_MAX)]
