"""Names of things. Each is its own type for mypy and a plain str at run time."""

import re
from typing import Final, NewType

ProcessGuid = NewType("ProcessGuid", str)
"""Names a DesiredLRP and is chosen by its client, such as `<app guid>-<version guid>`."""

InstanceGuid = NewType("InstanceGuid", str)
"""Names one attempt to run one index of a DesiredLRP; made by the BBS when it offers the work to a cell."""

TaskGuid = NewType("TaskGuid", str)
CellId = NewType("CellId", str)

Domain = NewType("Domain", str)
"""Names the part of the desired state that one client owns and keeps fresh."""

Handle = NewType("Handle", str)
"""Names a container inside a cell; equals the instance guid or the task guid it runs."""

GUID_PATTERN: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}", re.ASCII)
"""What a guid looks like; use `fullmatch`. Diego: models/desired_lrp.go, models/task.go
`^[a-zA-Z0-9_-]+$`, and columns of 255 characters."""


def is_guid(text: str) -> bool:
    """Whether `text` may name a DesiredLRP, an instance or a Task."""
    return GUID_PATTERN.fullmatch(text) is not None
