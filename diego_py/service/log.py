"""Logs are events: a constant name and fields, one JSON object a line on standard error."""

from __future__ import annotations

import sys
from typing import TextIO

import structlog


def logger(process: str, id: str, stream: TextIO | None = None) -> structlog.stdlib.BoundLogger:
    """A logger of this process. Nothing global is configured, so that many processes' worth fit in one test."""
    out = stream or sys.stderr
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        process=process,
        id=id,
    )
    return bound
