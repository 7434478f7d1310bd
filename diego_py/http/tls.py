"""TLS of a listener: both sides show a certificate of one authority, and new files are taken up without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog
from attrs import define, field, frozen


@frozen(kw_only=True)
class TlsFiles:
    """Where a listener's certificates are, all PEM. Files that change are read again before the next connection."""

    authority: str
    """Whose certificates clients must show."""
    certificate: str
    """Our own, and those between it and its authority."""
    key: str = field(repr=False)
    """Of our certificate."""

    def state(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when a file does. Raises OSError."""
        found = [Path(path).stat() for path in (self.authority, self.certificate, self.key)]
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)


@define
class MutualTls:
    """Makes the context of each connection."""

    files: TlsFiles
    log: structlog.stdlib.BoundLogger
    _state: object = field(default=None, init=False)
    _context: ssl.SSLContext | None = field(default=None, init=False)

    def context(self) -> ssl.SSLContext:
        """For a listening socket. Raises OSError or ssl.SSLError when the files cannot be used."""
        self._state = self.files.state()
        self._context = _loaded(self.files)
        listening = _loaded(self.files)
        listening.sni_callback = self._renewed
        return listening

    def _renewed(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Put the newest context in place. Files that cannot be read, half-written ones, leave the last one there."""
        try:
            state = self.files.state()
            if state != self._state:
                self._context = _loaded(self.files)
                self._state = state
                self.log.info("certificates_renewed")
        except (OSError, ssl.SSLError) as error:
            self.log.warning("certificates_not_renewed", error=type(error).__name__)
        if self._context is not None:
            connection.context = self._context


def _loaded(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.authority)
    context.load_cert_chain(files.certificate, files.key)
    # A session that is resumed is not verified again: the authority may have changed since.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context
