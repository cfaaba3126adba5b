"""The file that stands in for the parking lot while the table cannot be written: one line of JSON for each deed.

Reads and writes one file, which belongs to one slot. A line counts once it is on the disk. Deeds on events that are
parked in the table may stand here too; all of them are done to the table, in their order, as soon as it can be written.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cdc.errors import ConfigurationError
from cdc.parked import Parked
from cdc.parking import Deed, now, parked_fields

__all__ = ["ParkFile", "default_files", "default_path"]


def default_path(slot: str) -> Path:
    """Where the file of a slot is by default: in the folder for a user's programs' state."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "wells-cdc" / f"{slot}.parked.jsonl"


def default_files(slot: str | None) -> list[Path]:
    """The files that are there by default; of one slot, or of all."""
    folder = default_path("any").parent
    return [path for path in sorted(folder.glob("*.parked.jsonl")) if slot is None or path == default_path(slot)]


class ParkFile:
    """The file at `path`. `slot` and `cluster` are written into each line, so that no other server takes it in."""

    def __init__(self, path: Path, slot: str | None = None, cluster: str | None = None) -> None:
        self.path = path
        self._owner = {"slot": slot, "cluster": cluster}

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever the file does; None when it is not there or empty."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found.st_size else None

    def append(self, deed: Deed) -> None:
        """Write a deed, and see it on the disk. Raises OSError; then the file is as it was."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = json.dumps(deed | self._owner_of(deed), default=str).encode() + b"\n"
        with self._locked(os.O_CREAT) as file:
            size = os.lseek(file, 0, os.SEEK_END)
            try:
                whole = b"" if size == 0 or os.pread(file, 1, size - 1) == b"\n" else b"\n"
                _write(file, whole + line)
                os.fsync(file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file, size)
                raise
            if size == 0:
                _sync_folder(self.path.parent)

    def deeds(self) -> list[Deed]:
        """What is written, in order. Raises ConfigurationError when it is another slot's, OSError."""
        try:
            with self._locked() as file:
                return self._read(file)
        except FileNotFoundError:
            return []

    def move(self, perform: Callable[[Deed], None]) -> int:
        """Do every deed elsewhere, then forget them; how many they were. Nothing is forgotten when one raises."""
        try:
            with self._locked() as file:
                deeds = self._read(file)
                for deed in deeds:
                    perform(deed)
                os.ftruncate(file, 0)
                os.fsync(file)
                return len(deeds)
        except FileNotFoundError:
            return 0

    def over(self, parked: dict[str, Parked]) -> dict[str, Parked]:
        """What is parked when all of this is done to what the table holds. Raises OSError."""
        parked = dict(parked)
        for deed in self.deeds():
            _do(deed, parked)
        return parked

    def _owner_of(self, deed: Deed) -> dict[str, Any]:
        return self._owner if self._owner["slot"] is not None else {}

    def _read(self, file: int) -> list[Deed]:
        data = b"".join(iter(lambda: os.read(file, 1 << 20), b""))
        deeds = []
        for line in data.splitlines():
            try:
                deed = json.loads(line)
                deed["do"], deed["id"]
            except (ValueError, TypeError, KeyError):
                continue  # A line that was cut off never counted.
            self._check(deed)
            deeds.append(deed)
        return deeds

    def _check(self, deed: Deed) -> None:
        for name, mine in self._owner.items():
            if mine is not None and deed.get(name, mine) != mine:
                raise ConfigurationError(
                    f"{self.path} keeps parked events of another {name} ({deed[name]}): give each slot a park_file of "
                    "its own"
                )

    @contextmanager
    def _locked(self, flags: int = 0) -> Iterator[int]:
        """The file, open and locked against other processes and threads."""
        file = os.open(self.path, os.O_RDWR | flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(path: Path) -> None:
    """A new name in a folder is on the disk once the folder is."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _do(deed: Deed, parked: dict[str, Parked]) -> None:
    do, id = deed["do"], deed["id"]
    known = parked.get(id)
    if do == "park":
        made = parked_fields(deed)
        if known is not None:
            kept: dict[str, Any] = {"parked_at": known.parked_at, "superseded_by": known.superseded_by}
            made = replace(made, attempts=made.attempts + known.attempts, **kept)
        parked[id] = made
    elif known is None:
        return
    elif do == "remove":
        del parked[id]
    elif do == "supersede":
        parked[id] = replace(known, superseded_by=known.superseded_by or deed["by"])
    elif do == "request":
        at = deed.get("at")
        parked[id] = replace(known, requested_at=datetime.fromisoformat(at) if at else now(), forced=deed["forced"])
    elif do == "fail":
        error: dict[str, Any] = {
            "error_type": deed["error_type"],
            "error": deed["error"],
            "attempts": known.attempts + 1,
        }
        parked[id] = replace(known, requested_at=None, forced=False, **error)
    else:
        parked[id] = replace(known, requested_at=None, forced=False)
