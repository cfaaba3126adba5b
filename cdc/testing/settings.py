"""The server settings of a sandbox, written as a configuration file.

Touches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cdc.errors import ConfigurationError

__all__ = ["Setting", "configuration"]

_SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_prepared_transactions": "16",
    "fsync": "off",
    # Shared memory lies in the data folder, so that a killed server leaves none of it elsewhere.
    "dynamic_shared_memory_type": "mmap",
}
# These keep the server private, and belong to the sandbox itself.
_OWN = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
_REFUSED = {*_OWN, "port", "data_directory", "config_file", "hba_file", "ident_file", "external_pid_file"}

Setting = str | int | float


def configuration(settings: Mapping[str, Setting]) -> str:
    """Return the lines for postgresql.conf: the sandbox's defaults, the caller's settings, what keeps it private.

    Args:
        settings: server settings by name.

    Raises:
        ConfigurationError: a name or a value cannot be one, or belongs to the sandbox.
    """
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$.]*", name):
            raise ConfigurationError(f"{name!r} is not the name of a server setting.")
        if name.lower() in _REFUSED:
            raise ConfigurationError(f"The sandbox sets {name} itself; leave it out of the settings.")
        if re.search(r"[\0\r\n]", str(value)):
            raise ConfigurationError(f"The value of the setting {name} has a line break or a zero byte in it.")
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in (_SETTINGS | {**settings} | _OWN).items())


def _quoted(value: Setting) -> str:
    text = ("off", "on")[value] if isinstance(value, bool) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
