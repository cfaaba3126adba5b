"""The settings of a consumer: what is wrong with them, said before anything is connected to.

Touches nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from cdc.errors import ConfigurationError
from cdc.lsn import Position
from cdc.reconnect import Backoff

__all__ = ["check_failover", "check_kinds", "check_polling", "check_record", "check_settings", "check_until"]


def check_kinds(require_subject: object, backoff: object, spool_folder: object, park_file: object) -> None:
    """Raise ConfigurationError for a setting of the wrong kind."""
    if not isinstance(require_subject, bool):
        name = "require_subject"
        raise ConfigurationError(f"{name} is True or False, not {require_subject!r}")
    if not isinstance(backoff, Backoff | None):
        raise ConfigurationError(f"backoff is a cdc.Backoff, as cdc.Backoff(first=1.0), not {backoff!r}")
    if not isinstance(spool_folder, str | Path | None) or spool_folder == "":
        raise ConfigurationError(f"spool_folder: {spool_folder!r} is not a folder")
    if not isinstance(park_file, str | Path | None) or park_file == "" or _is_no_file(park_file):
        raise ConfigurationError(f"park_file is the path of a file, not {str(park_file)!r}")


def _is_no_file(path: str | Path | None) -> bool:
    return path is not None and Path(path).exists() and not Path(path).is_file()


def check_settings(names: Sequence[str], slot: str | None, on_gap: str | None, rights_interval: float) -> None:
    """Raise ConfigurationError for a setting that cannot be."""
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError("publication: give a name, or several")
    if slot is not None and not (isinstance(slot, str) and slot):
        raise ConfigurationError("slot: give a name, or None for a temporary slot")
    if on_gap not in (None, "stop", "deliver", "resync"):
        raise ConfigurationError(f"on_gap is 'stop' or 'deliver' or 'resync', not {on_gap!r}")
    if not (isinstance(rights_interval, int | float) and 0 < rights_interval < math.inf):
        raise ConfigurationError("rights_interval is above 0 seconds")
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("socket"):
        raise ConfigurationError("gevent has patched the socket module: libpq's waits would block every greenlet")


def check_failover(failover: bool, slot: str | None) -> None:
    """Raise ConfigurationError when a temporary slot is to survive a failover."""
    if failover and slot is None:
        raise ConfigurationError("failover=True needs a named slot: a temporary one goes with its connection")


def check_polling(interval: object) -> None:
    """Raise ConfigurationError for an interval that cannot be."""
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 0 < interval < math.inf:  # type: ignore[operator]
        raise ConfigurationError(f"polling_interval is a number of seconds above 0, not {interval!r}")


def check_record(path: object) -> None:
    """Raise ConfigurationError for what cannot be the file of a recording."""
    if not isinstance(path, str | Path) or path == "":
        raise ConfigurationError(f"a recording is the path of a file, not {path!r}")


def check_until(until: object) -> Position | None:
    """Where a replay is to end. Raises ConfigurationError for what is no position."""
    if until is None or isinstance(until, Position):
        return until
    try:
        return Position.parse(until)  # type: ignore[arg-type]
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(
            f"until is a cdc.Position, its text such as 'k3v9:0/16B3748:3', or None, not {until!r}"
        ) from None
