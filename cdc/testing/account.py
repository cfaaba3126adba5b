"""Says which system user runs a sandbox's server, and whether that user reaches a program or a folder.

PostgreSQL refuses to run as root. Reads the user database and runs small programs as the other user; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import ConfigurationError

__all__ = ["Account", "server_account"]

_STAND_INS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A system user without privileges.

    Attributes:
        name: the user's name.
        uid: the user's number.
        gid: the number of the user's main group.
    """

    name: str
    uid: int
    gid: int

    def reaches(self, folder: Path) -> bool:
        """Tell whether this user can run the server's programs in `folder`, by trying."""
        return all(self._succeeds([str(folder / name), "--version"]) for name in ("initdb", "postgres"))

    def enters(self, folder: Path) -> bool:
        """Tell whether this user can go through `folder` and all its parents."""
        return self._succeeds(["/bin/sh", "-c", 'cd -P "$1"', "sh", str(folder)])

    def _succeeds(self, command: list[str]) -> bool:
        try:
            run = subprocess.run(
                command, user=self.uid, group=self.gid, extra_groups=[], cwd="/", timeout=20,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return False
        return run.returncode == 0

    def scratch_folder(self) -> Path:
        """Return the folder for temporary files: the usual one, or another that this user can enter.

        Raises:
            ConfigurationError: this user can enter none of them.
        """
        for folder in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))):
            if self.enters(folder):
                return folder
        raise ConfigurationError(
            f"No folder for temporary files is open to the user {self.name}, who runs the sandbox's server in place "
            "of root. Run as a normal user, or set TMPDIR to a folder that every user can enter."
        )


def server_account() -> Account | None:
    """Return the user to run the server as, or None when the process's own user can do it.

    Raises:
        ConfigurationError: the process runs as root and the system has no user to run the server as.
    """
    if os.geteuid() != 0:
        return None
    for name in _STAND_INS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and the system has no user postgres or nobody to run it as. "
        "Run as a normal user, or add one with `useradd --system postgres`."
    )
