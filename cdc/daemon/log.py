"""Log lines of a daemon: JSON or console, to stderr, since stdout is for data.

Configures structlog and the standard `logging` for the whole process, so that cdc, the user's handlers and the
packages that they use log alike.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from cdc.daemon.config import LogConfig

__all__ = ["configure_log"]


def configure_log(config: LogConfig) -> None:
    """Send every log line of this process to stderr; times are UTC."""
    level: int = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = _renderer(config.format)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove, *renderer]))
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _renderer(chosen: str) -> list[Any]:
    """The processors that make a line; "auto" takes the console's for a terminal."""
    terminal = sys.stderr.isatty()
    if chosen == "json" or (chosen == "auto" and not terminal):
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [structlog.dev.ConsoleRenderer(colors=terminal)]
