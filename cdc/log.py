"""Where cdc's own log lines go.

To structlog when the program has configured it; else, like any library's, to the standard logger `cdc`, which
shows warnings on stderr and nothing more until the program asks for it.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

__all__ = ["log"]

_STANDARD: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("cdc"),
    processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
    wrapper_class=structlog.stdlib.BoundLogger,
)


class _Log:
    """Finds the logger at each line, so that a program may configure structlog after it has imported cdc."""

    def debug(self, event: str, **values: Any) -> None:
        _logger().debug(event, **values)

    def info(self, event: str, **values: Any) -> None:
        _logger().info(event, **values)

    def warning(self, event: str, **values: Any) -> None:
        _logger().warning(event, **values)

    def error(self, event: str, **values: Any) -> None:
        _logger().error(event, **values)


def _logger() -> Any:
    return structlog.get_logger("cdc") if structlog.is_configured() else _STANDARD


log = _Log()
