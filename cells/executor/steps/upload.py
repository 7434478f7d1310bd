"""Upload: a file of the container to a URL. Diego: executor/depot/steps/upload_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.steps.download import readable
from cells.executor.steps.step import Site
from diego_py.call import Call
from diego_py.errors import DiegoError


@frozen
class Upload:
    """`artifact` names it in the log; without one nothing is told."""

    path: str
    url: str
    user: str
    artifact: str = ""
    log_source: str = ""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what `Transfers.upload` does."""
        self._tell(site, f"Uploading {self.artifact}...")
        try:
            size = await site.transfers.upload(call, site.handle, self.path, self.url, self.user)
        except DiegoError as failure:
            self._tell(site, f"Failed to upload {self.artifact}: {failure.root.message}")
            raise
        self._tell(site, f"Uploaded {self.artifact} ({readable(size)})")

    def _tell(self, site: Site, text: str) -> None:
        if self.artifact:
            site.tell(self.log_source, text)
