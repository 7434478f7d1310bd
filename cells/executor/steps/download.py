"""Download: an archive from a URL, unpacked in the container. Diego: executor/depot/steps/download_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.steps.step import Site
from cells.executor.transfers.transfers import Source
from diego_py.call import Call
from diego_py.errors import DiegoError

KIBIBYTE = 1024


@frozen
class Download:
    """`artifact` names it in the log; without one nothing is told."""

    source: Source
    to: str
    user: str
    artifact: str = ""
    log_source: str = ""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what `Transfers.download` does."""
        self._tell(site, f"Downloading {self.artifact}...")
        try:
            size = await site.transfers.download(call, site.handle, self.source, self.to, self.user)
        except DiegoError as failure:
            self._tell(site, f"Failed to download {self.artifact}: {failure.root.message}")
            raise
        self._tell(site, f"Downloaded {self.artifact} ({readable(size)})")

    def _tell(self, site: Site, text: str) -> None:
        if self.artifact:
            site.tell(self.log_source, text)


def readable(size: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "K", "M"):
        if size < KIBIBYTE:
            return f"{size:.4g}{unit}"
        size /= KIBIBYTE
    return f"{size:.4g}G"
