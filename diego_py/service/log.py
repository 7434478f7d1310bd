"""Logs are events: a constant name and fields, one JSON object a line on standard error."""

from __future__ import annotations

import sys
from typing import Final, TextIO

import structlog

INFO: Final = 20
WARNING: Final = 30


def logger(process: str, id: str, stream: TextIO | None = None, level: int = INFO) -> structlog.stdlib.BoundLogger:
    """A logger of this process. Nothing global is configured, so that many processes' worth fit in one test."""
    out = stream or sys.stderr
    wrapped: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    # What is wrapped is put together anew for each event; what is bound was put together once.
    return wrapped.bind(process=process, id=id)
