"""Whether anything was done to the installation yet: requests from then on count as met by a fault."""

from __future__ import annotations

from attrs import define


@define
class Harms:
    """Shared by all that can be harmed; a trial begins anew."""

    begun: bool = False

    def begin(self) -> None:
        """Something is done to it now."""
        self.begun = True
